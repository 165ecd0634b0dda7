"""TIFF: depth, photometric interpretation and layout, by its tags."""

from __future__ import annotations

from typing import Any

from PIL import Image

from jepa_jax.images.headers.samples import Samples, channels_in_words, refused

WIDTH, HEIGHT, BITS, PHOTOMETRIC, STRIPS, COUNT, ROWS, COUNTS, PLANAR = 256, 257, 258, 262, 273, 277, 278, 279, 284
COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_COUNTS, INK_SET, FORMAT = 320, 322, 323, 324, 325, 332, 339
COEFFICIENTS, SUBSAMPLING, REFERENCE = 529, 530, 532

COMPRESSION, OLD_JPEG, SUBFILE = 259, 6, 254

INTERPRETATIONS = {
    0: "WhiteIsZero",
    1: "BlackIsZero",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    32803: "colour filter array",
    34892: "linear raw",
}
SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating point", 4: "undefined", 5: "complex", 6: "complex float"}

FULL_RANGE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
"""The reference black and white of YCbCr as JPEG has it, which is how Pillow reads it."""

BT601 = (0.299, 0.587, 0.114)


def tiff_samples(image: Image.Image) -> Samples:
    """The samples of a TIFF's first page."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:
        return Samples()
    bits, photometric = _numbers(tags.get(BITS, 1)), tags.get(PHOTOMETRIC, 0)
    if set(_numbers(tags.get(FORMAT, 1))) != {1} or max(bits) > 16:
        raise refused("TIFF", f"{tags_described(tags)}, whose range is unknown")
    if PHOTOMETRIC not in tags and tags.get(COMPRESSION) != OLD_JPEG:
        raise refused("TIFF", "does not say whether white is zero")
    if tags.get(SUBFILE, 0) & 1 and getattr(image, "n_frames", 1) > 1:
        raise refused("TIFF", "begins with a reduced copy of the picture that is on a later page")
    if photometric in (8, 9):
        raise refused("TIFF", tags_described(tags))
    if photometric == 5 and tags.get(INK_SET, 1) != 1:
        raise refused("TIFF", "has other inks than CMYK")
    if photometric == 3 and 0 < max(_numbers(tags.get(COLOUR_MAP, 0))) < 256:
        raise refused("TIFF", "has a colour map of 8 bits, where the format has 16")
    if not getattr(image, "use_load_libtiff", False):
        _require_plain(tags, bits, photometric)
    deep = image.mode.startswith("I;16")
    return Samples(white=2 ** bits[0] - 1 if deep else None, inverted=deep and photometric == 0)


def _require_plain(tags: Any, bits: tuple[int, ...], photometric: int) -> None:
    """Refuse what Pillow reads wrongly where no compression has libtiff read it."""
    planar = tags.get(PLANAR, 1) == 2
    planes = tags.get(COUNT, 1) if planar else 1
    # Pillow takes a letter of its name for the layout of all samples as that of a plane.
    if planar and (set(bits) != {8} or photometric not in ((2, 5) if planes > 1 else (1,))):
        raise refused("TIFF", f"{tags_described(tags)}, in separate planes")
    if photometric == 6 and len(bits) == 3:
        found = (_numbers(tags.get(SUBSAMPLING, (2, 2))), _floats(tags.get(COEFFICIENTS, BT601)))
        if found != ((1, 1), BT601) or _floats(tags.get(REFERENCE, FULL_RANGE)) != FULL_RANGE:
            raise refused("TIFF", "has YCbCr that is subsampled, or of another range or matrix than JPEG's")
    width, height = tags[WIDTH], tags[HEIGHT]
    if STRIPS in tags:
        rows = max(1, min(int(tags.get(ROWS, height)), height))
        offsets, counts, across = _numbers(tags[STRIPS]), _numbers(tags.get(COUNTS, ())), width
    else:
        rows, across = max(1, int(tags.get(TILE_HEIGHT, height))), max(1, int(tags.get(TILE_WIDTH, width)))
        offsets, counts = _numbers(tags.get(TILES, ())), _numbers(tags.get(TILE_COUNTS, ()))
    needed = -(-height // rows) * -(-width // across) * planes
    size = height * planes * ((width * sum(bits) // planes + 7) // 8)
    if len(offsets) < needed or 0 in offsets[:needed] or (counts and 0 not in counts and sum(counts) < size):
        raise refused("TIFF", "does not hold data for all of its picture")


def tags_described(tags: Any) -> str:
    """A layout in words."""
    bits, formats = _numbers(tags.get(BITS, 1)), _numbers(tags.get(FORMAT, 1))
    kinds = "/".join(SAMPLE_FORMATS.get(kind, str(kind)) for kind in sorted(set(formats)))
    interpretation = tags.get(PHOTOMETRIC, 0)
    name = INTERPRETATIONS.get(interpretation, f"photometric interpretation {interpretation}")
    depths = "/".join(map(str, sorted(set(bits))))
    return f"has {depths} bits per sample, {kinds}, {name}, {channels_in_words(tags.get(COUNT, len(bits)))}"


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in value) if isinstance(value, tuple) else (int(value),)


def _floats(value: Any) -> tuple[float, ...]:
    return tuple(round(float(number), 4) for number in value)
