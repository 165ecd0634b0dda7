"""Pictures of every format, mode and depth, each with its 8-bit twin: the table in docs/pictures.md, and its proof.

`python tests/support/picture_kinds.py > docs/pictures.md` writes the table anew; a test checks that it is current.
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from picture_files import (
    associated,
    bmp,
    chunk,
    levels,
    over_white,
    packed,
    palette_of,
    png,
    saved,
    subsampled,
    tiff,
    without,
)
from PIL import Image

from jepa_jax.errors import ImageError
from jepa_jax.images.decoding import open_encoded
from jepa_jax.images.preprocessing import to_rgb
from jepa_jax.images.reasons import unopened

DEEP = Path(__file__).resolve().parents[1] / "images" / "deep"
"""Small files that nothing installed here writes: deep AVIF and JPEG 2000, made with imagecodecs, lossless."""

TWIN = "as its 8-bit twin"


@dataclass(frozen=True)
class Kind:
    """One file.

    Attributes:
        format, mode, bits: its row in the table.
        variant: what of it may differ without a difference to its outcome.
        content: the file.
        twin: what is to come out, uint8 [H, W, 3].
        exactly: whether the format loses nothing.
    """

    format: str
    mode: str
    bits: str
    variant: str
    content: bytes
    twin: np.ndarray
    exactly: bool = True


# PNG


def pngs() -> Iterator[Kind]:
    """Every depth that the format has."""
    for bits, (colour, name, channels) in itertools.product(
        (1, 2, 4, 8, 16), ((0, "grey", 1), (2, "RGB", 3), (4, "grey, alpha", 2), (6, "RGB, alpha", 4))
    ):
        if bits < 8 and colour:
            continue
        values, twin = levels(channels, 2**bits - 1)
        yield Kind("PNG", name, str(bits), "", png(values, bits, colour), over_white(twin))
        if colour in (0, 2):
            key = tuple(int(value) for value in values[5, 7])
            for near, variant in ((0, ""), (1, "near it")):
                if near and bits == 16:  # one that differs in the lower byte alone stays
                    values[9, 9] = np.array(key) ^ 1
                    twin[9, 9] = np.rint(values[9, 9] / 257)
                if near and bits != 16:
                    continue
                extra = chunk(b"tRNS", struct.pack(f">{channels}H", *key))
                seen = over_white(without(values, twin, key))
                yield Kind(
                    "PNG", f"{name}, a transparent value", str(bits), variant, png(values, bits, colour, extra), seen
                )
    for bits in (1, 2, 4, 8):
        values, _ = levels(1, 2**bits - 1)
        colours = palette_of(2**bits)
        head = chunk(b"PLTE", colours.tobytes())
        twin = colours[values[..., 0]]
        yield Kind("PNG", "palette", str(bits), "", png(values, bits, 3, head), twin)
        alpha = np.random.default_rng(bits).integers(0, 256, 2**bits).astype(np.uint8)
        content = png(values, bits, 3, head + chunk(b"tRNS", alpha.tobytes()))
        twin = over_white(np.concatenate([twin, alpha[values]], axis=-1))
        yield Kind("PNG", "palette, alpha per entry", str(bits), "", content, twin)
    values, _ = levels(1, 255)
    yield Kind("PNG", "palette that is missing", "8", "", png(values, 8, 3), np.repeat(values, 3, -1).astype(np.uint8))


# TIFF


def tiffs() -> Iterator[Kind]:
    """Grey, RGB, palette, CMYK, YCbCr and CIELab, in either byte order, plain and compressed."""
    ways = [
        (f"{'little' if order == '<' else 'big'}-endian, {'deflate' if deflate else 'plain'}", order, deflate)
        for order, deflate in itertools.product("<>", (False, True))
    ]
    for (variant, order, deflate), bits in itertools.product(ways, (1, 2, 4, 8, 10, 12, 14, 16)):
        values, twin = levels(1, 2**bits - 1)
        for photometric, name in ((1, "BlackIsZero"), (0, "WhiteIsZero")):
            stored = values if photometric else 2**bits - 1 - values
            content = tiff(stored, bits, photometric, order, deflate=deflate)
            yield Kind("TIFF", name, str(bits), variant, content, over_white(twin))
        if bits < 8:
            continue
        for planar in (False, True):
            where = variant + (", separate planes" if planar else "")
            values, twin = levels(3, 2**bits - 1)
            content = tiff(values, bits, 2, order, deflate=deflate, planar=planar)
            yield Kind("TIFF", "RGB", str(bits), where, content, twin)
        values, twin = levels(4, 2**bits - 1)
        for extra, name in ((2, "RGB, alpha"), (0, "RGB, a channel of no meaning")):
            tags = {338: ("H", (extra,))}
            seen = over_white(twin) if extra else twin[..., :3]
            yield Kind(
                "TIFF", name, str(bits), variant, tiff(values, bits, 2, order, deflate=deflate, tags=tags), seen
            )
        product, shown = associated(bits)
        content = tiff(product, bits, 2, order, deflate=deflate, tags={338: ("H", (1,))})
        yield Kind("TIFF", "RGB, alpha that is multiplied in", str(bits), variant, content, shown)
        values, twin = levels(2, 2**bits - 1)
        content = tiff(values, bits, 1, order, deflate=deflate, tags={338: ("H", (2,))})
        yield Kind("TIFF", "BlackIsZero, alpha", str(bits), variant, content, over_white(twin))
        values, twin = levels(4, 2**bits - 1)
        ink = np.asarray(Image.fromarray(twin, "CMYK").convert("RGB"))
        yield Kind("TIFF", "CMYK", str(bits), variant, tiff(values, bits, 5, order, deflate=deflate), ink)
    for (variant, order, deflate), bits in itertools.product(ways, (1, 2, 4, 8, 16)):
        values, _ = levels(1, min(2**bits - 1, 255))
        colours = palette_of(2 ** min(bits, 8))
        entries = np.zeros((2**bits, 3), np.int64)
        entries[: len(colours)] = colours.astype(np.int64) * 257
        for narrow in (False, True) if bits == 8 else (False,):
            stored = tuple(int(c) for c in (entries // 257 if narrow else entries).T.reshape(-1))
            content = tiff(values, bits, 3, order, deflate=deflate, tags={320: ("H", stored)})
            name = "palette of 8-bit colours" if narrow else "palette"
            yield Kind("TIFF", name, str(bits), variant, content, colours[values[..., 0]])
    values, twin = levels(3, 255)
    seen = np.asarray(Image.fromarray(twin, "YCbCr").convert("RGB"))
    for variant, order, deflate in ways:
        for factors in ((1, 1), (2, 2)):
            tags = {530: ("H", factors)}
            data = None if factors == (1, 1) else b"".join(subsampled(values))
            if data and deflate:
                continue
            name = "YCbCr" if factors == (1, 1) else "YCbCr, subsampled"
            content = tiff(values, 8, 6, order, deflate=deflate, tags=tags, data=data)
            yield Kind("TIFF", name, "8", variant, content, seen, exactly=False)
        yield Kind("TIFF", "CIELab", "8", variant, tiff(values, 8, 8, order, deflate=deflate), twin)
        for bits, (kind, name) in itertools.product((8, 16, 32), ((2, "signed"), (3, "floating point"))):
            grey, dull = levels(1, 2**bits - 1)
            content = tiff(grey, bits, 1, order, deflate=deflate, tags={339: ("H", (kind,))})
            yield Kind("TIFF", f"BlackIsZero, {name}", str(bits), variant, content, over_white(dull))
        grey, dull = levels(1, 2**32 - 1)
        yield Kind("TIFF", "BlackIsZero", "32", variant, tiff(grey, 32, 1, order, deflate=deflate), over_white(dull))
    values, twin = levels(1, 255)
    yield Kind("TIFF", "no photometric interpretation", "8", "", tiff(values, 8, None), over_white(twin))
    for name, photometric in (("BlackIsZero", 1), ("WhiteIsZero", 0)):
        stored = values if photometric else 255 - values
        content = tiff(stored, 8, photometric, planar=True)
        yield Kind("TIFF", name, "8", "separate planes", content, over_white(twin))


# The others


def netpbm() -> Iterator[Kind]:
    """Each maximum, in bytes and in text."""
    for largest, (channels, name) in itertools.product(
        (1, 100, 255, 256, 1023, 4095, 16383, 65535), ((1, "grey"), (3, "RGB"))
    ):
        values, twin = levels(channels, largest)
        if largest == 65535:
            values[0], twin[0] = 97, 0  # values that would fit into 8 bits
        size = f"{values.shape[1]} {values.shape[0]} {largest}\n"
        raw = values.astype(np.uint8 if largest < 256 else ">u2").tobytes()
        text = " ".join(map(str, values.reshape(-1).tolist()))
        plain, binary = ("P2", "P5") if channels == 1 else ("P3", "P6")
        for variant, content in (
            ("bytes", f"{binary} {size}".encode() + raw),
            ("text", f"{plain} {size}{text}".encode()),
        ):
            yield Kind("PPM", name, f"maximum {largest}", variant, content, over_white(twin))
    values, twin = levels(1, 1)
    content = f"P4 {values.shape[1]} {values.shape[0]}\n".encode() + packed(1 - values[..., 0], 1)
    yield Kind("PPM", "black and white", "1", "bytes", content, over_white(twin))
    _, twin = levels(1, 255)
    yield Kind(
        "PPM", "floating point", "32", "", saved(Image.fromarray(twin[..., 0]).convert("F"), "PPM"), over_white(twin)
    )


def targas() -> Iterator[Kind]:
    """With the bits of transparency that the header counts, and without."""
    for mode, channels in (("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)):
        _, twin = levels(channels, 255)
        picture = Image.fromarray(twin[..., 0] if channels == 1 else twin, mode)
        for variant in (None, "tga_rle"):
            content = bytearray(saved(picture, "TGA", compression=variant))
            name = variant or "plain"
            yield Kind("TGA", mode, "8", name, bytes(content), over_white(twin))
            if "A" in mode:
                content[17] &= 0xF0
                seen = over_white(twin[..., :-1])
                yield Kind("TGA", f"{mode}, no bits of alpha", "8", name, bytes(content), seen)
    values, _ = levels(1, 255)
    colours = np.random.default_rng(5).integers(0, 256, (256, 4)).astype(np.uint8)
    stored = colours[:, [2, 1, 0, 3]].tobytes() + values.astype(np.uint8).tobytes()
    for alpha in (0, 8):
        head = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 256, 32, 0, 0, 23, 18, 8, 0x20 | alpha)
        seen = colours[values[..., 0]]
        name = "palette, alpha" if alpha else "palette of 4 bytes, no bits of alpha"
        yield Kind("TGA", name, "8", "plain", head + stored, over_white(seen) if alpha else seen[..., :3])
    values, twin = levels(3, 31)
    red, green, blue = np.moveaxis(values, -1, 0)
    for alpha in (0, 1):
        pixels = (red << 10 | green << 5 | blue | (0x8000 * (1 - alpha))).astype("<u2")
        head = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, pixels.shape[1], pixels.shape[0], 16, 0x20 | alpha)
        name = "RGB, a bit of alpha" if alpha else "RGB"
        yield Kind("TGA", name, "5", "plain", head + pixels.tobytes(), twin, exactly=False)


def bitmaps() -> Iterator[Kind]:
    """Palettes, and 5, 6 and 8 bits a channel."""
    for bits in (1, 4, 8):
        values, _ = levels(1, 2**bits - 1)
        colours = palette_of(2**bits)
        stored = np.concatenate([colours[:, ::-1], np.zeros((len(colours), 1), np.uint8)], axis=1).tobytes()
        rows = np.frombuffer(packed(values[..., 0], bits), np.uint8).reshape(len(values), -1)
        yield Kind("BMP", "palette", str(bits), "", bmp(rows, bits, colours=stored), colours[values[..., 0]])
    for green, masks in ((31, (0x7C00, 0x3E0, 0x1F, 0)), (63, (0xF800, 0x7E0, 0x1F, 0))):
        values, twin = levels(3, 31)
        middle, shown = levels(1, green, seed=1)
        values[..., 1:2], twin[..., 1:2] = middle, shown
        shift = 10 if green == 31 else 11
        pixels = (values[..., 0] << shift | values[..., 1] << 5 | values[..., 2]).astype("<u2")
        rows = pixels.view(np.uint8).reshape(len(values), -1)
        name = "5, 5, 5" if green == 31 else "5, 6, 5"
        yield Kind("BMP", "RGB", name, "", bmp(rows, 16, 3, masks), twin, exactly=False)
    _, twin = levels(4, 255)
    rows = np.ascontiguousarray(twin[..., [2, 1, 0]]).reshape(len(twin), -1)
    yield Kind("BMP", "RGB", "8", "", bmp(rows, 24), twin[..., :3])
    rows = np.ascontiguousarray(twin[..., [2, 1, 0, 3]]).reshape(len(twin), -1)
    yield Kind("BMP", "RGB, a byte of no meaning", "8", "", bmp(rows, 32), twin[..., :3])
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield Kind("BMP", "RGB, alpha", "8", "", bmp(rows, 32, 3, masks), over_white(twin))


def jpegs() -> Iterator[Kind]:
    """Grey, YCbCr and four channels, with and without Adobe's marker."""
    photo = np.asarray(Image.fromarray(levels(4, 255)[1]).resize((70, 50), Image.Resampling.BICUBIC))
    for mode, channels in (("L", 1), ("RGB", 3), ("CMYK", 4)):
        picture = Image.fromarray(
            photo[..., 0] if channels == 1 else np.ascontiguousarray(photo[..., :channels]), mode
        )
        twin = np.asarray(picture.convert("RGB"))
        name = {"L": "grey", "RGB": "YCbCr", "CMYK": "CMYK, Adobe"}[mode]
        for progressive in (False, True):
            content = saved(picture, "JPEG", quality=100, subsampling=0, progressive=progressive)
            variant = "progressive" if progressive else "sequential"
            yield Kind("JPEG", name, "8", variant, content, twin, exactly=False)
            if mode == "CMYK":
                at = content.index(b"\xff\xee")
                (length,) = struct.unpack(">H", content[at + 2 : at + 4])
                bare = content[:at] + content[at + 2 + length :]
                yield Kind("JPEG", "CMYK", "8", variant, bare, twin, exactly=False)
        at = content.index(b"\xff\xc2")
        deep = content[: at + 4] + b"\x0c" + content[at + 5 :]
        yield Kind("JPEG", name, "12", "", deep, twin, exactly=False)
    pages = [Image.fromarray(photo[..., :3])] * 2
    content = saved(pages[0], "MPO", quality=100, subsampling=0, save_all=True, append_images=pages[1:])
    yield Kind("MPO", "YCbCr", "8", "", content, photo[..., :3], exactly=False)


def modern() -> Iterator[Kind]:
    """GIF, WebP, AVIF and JPEG 2000."""
    values, _ = levels(1, 255)
    colours = palette_of(256)
    picture = Image.fromarray(values[..., 0].astype(np.uint8), "P")
    picture.putpalette(colours.tobytes())
    twin = colours[values[..., 0]]
    yield Kind("GIF", "palette", "8", "", saved(picture, "GIF"), twin)
    clear = int(values[4, 4, 0])
    seen = np.where(values == clear, np.uint8(255), twin)
    yield Kind("GIF", "palette, a transparent entry", "8", "", saved(picture, "GIF", transparency=clear), seen)
    for mode, channels in (("RGB", 3), ("RGBA", 4)):
        _, twin = levels(channels, 255)
        content = saved(Image.fromarray(twin, mode), "WEBP", lossless=True, exact=True)
        yield Kind("WEBP", mode, "8", "lossless", content, over_white(twin))
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    all_four = np.stack([ramp, 255 - ramp, np.roll(ramp, 77), np.where(ramp < 100, 0, 255).astype(np.uint8)], axis=-1)
    names = {1: "grey", 2: "grey, alpha", 3: "RGB", 4: "RGB, alpha"}
    for path in sorted(DEEP.glob("*bit-*"), key=lambda path: (path.suffix, path.name)):
        depth, channels = path.stem.removeprefix("signed").split("bit-")
        which = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[int(channels)]
        largest = 2 ** int(depth) - 1
        twin = np.rint(np.rint(all_four[..., which] * (largest / 255)) * 255 / largest).astype(np.uint8)
        name = names[int(channels)] + (", signed" if path.stem.startswith("signed") else "")
        kind = {".avif": "AVIF", ".jp2": "JPEG2000"}[path.suffix]
        yield Kind(kind, name, depth, "lossless", path.read_bytes(), over_white(twin))


def kinds() -> list[Kind]:
    """All of them."""
    return [*jpegs(), *pngs(), *modern(), *tiffs(), *bitmaps(), *targas(), *netpbm()]


def outcome(kind: Kind) -> str:
    """What becomes of a file: `TWIN`, the reason why it is refused, or how far it is off."""
    try:
        with open_encoded(kind.content) as image:
            if image.format != kind.format:
                return f"opened as {image.format}"
            found = np.asarray(to_rgb(image))
    except ImageError as error:
        return f"refused: {error}"
    except Image.UnidentifiedImageError:
        return f"refused: {unopened(kind.content)}"
    except ValueError as error:
        return f"refused: {error}"
    if found.shape != kind.twin.shape:
        return f"shape {found.shape}"
    difference = int(np.max(np.abs(found.astype(int) - kind.twin.astype(int))))
    return TWIN if difference <= (0 if kind.exactly else 8) else f"off by {difference} of 255"


HEAD = """# Pictures: what becomes of each format, mode and depth

An encoder sees 8 bits a channel. What a file's samples mean is judged from its header, never from the values. "As its
8-bit twin" says that a file whose samples are those of an 8-bit picture, spread over its own range, gives that
picture's pixels: bit for bit where the format loses nothing. All else is refused, in a job as a row of the failures.

- Grey of more than 8 bits is rounded to 8; of colours of 16 bits Pillow takes the upper 8, as `transformers` does.
- Transparency is laid over white. An EXIF orientation (or XMP's, where EXIF has none) is
  applied. Of an animation the first frame is taken, of several pages the first.
- A picture whose data end before it does is refused: strips, rows or scans that are missing included.
- A JPEG of more than {scans} scans is refused, and so is a picture of more than {pixels:,} pixels.
- In a job, a record that takes more than {seconds:.0f} seconds to be read and decoded is given up.
- In Python, pass pictures as `Image.open` gives them: a PNG of 2 or 4 bits with a transparent value, a TGA or a
  JPEG 2000 that Pillow has decoded already no longer tells its depth.

Written by `python tests/support/picture_kinds.py`, which makes a file of every row;
`tests/images/test_picture_table.py` checks that this is current.

| format | mode | bits | variants | what becomes of it |
|---|---|---|---|---|
"""


def table() -> str:
    """The page in docs/."""
    from jepa_jax.images.decoding import MAX_PIXELS
    from jepa_jax.images.jpeg_scans import MAX_SCANS
    from jepa_jax.images.pipeline import RECORD_SECONDS

    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for kind in kinds():
        rows.setdefault((kind.format, kind.mode, kind.bits, outcome(kind)), []).append(kind.variant)
    lines = []
    for (format, mode, bits, what), variants in rows.items():
        one_way = len({key[3] for key in rows if key[:3] == (format, mode, bits)}) == 1
        some = "; ".join(dict.fromkeys(filter(None, variants)))
        lines.append(f"| {format} | {mode} | {bits} | {'' if one_way else some} | {what} |\n")
    return HEAD.format(scans=MAX_SCANS, pixels=MAX_PIXELS, seconds=RECORD_SECONDS) + "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table())
