"""Image files byte by byte, where no library writes what a test needs."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image


def levels(channels: int, largest: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a picture [18, 23, channels] from 0 to ``largest``, and what they are in 8 bits."""
    random = np.random.default_rng([seed, channels, largest])
    if largest < 255:
        values = random.integers(0, largest + 1, (18, 23, channels))
        return values, np.rint(values * 255 / largest).astype(np.uint8)
    twin = random.integers(0, 256, (18, 23, channels)).astype(np.uint8)
    twin[:3] //= 16  # dark rows: values that small mean the same
    return np.rint(twin * (largest / 255)).astype(np.int64), twin


def over_white(twin: np.ndarray) -> np.ndarray:
    """What Pillow makes of an 8-bit picture of 1 to 4 channels: RGB over white."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[twin.shape[-1]]
    picture = Image.fromarray(np.ascontiguousarray(twin[..., 0] if mode == "L" else twin), mode)
    if "A" in mode:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB"))


def without(values: np.ndarray, twin: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """The twin with an alpha channel that is 0 where the values are the colour."""
    alpha = np.where(np.all(values == colour, axis=-1), 0, 255).astype(np.uint8)
    return np.concatenate([twin, alpha[..., None]], axis=-1)


def packed(values: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Samples [rows, n] in so many bits each, every row from a byte of its own."""
    if bits in (16, 32):
        return values.astype(f"{order}u{bits // 8}").tobytes()
    each = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def saved(picture: Image.Image, format: str, **options) -> bytes:
    """A file as Pillow writes it."""
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray, bits: int, colour: int, extra: bytes = b"") -> bytes:
    """A PNG of samples [H, W, channels], without filters."""
    height, width, _ = values.shape
    rows = packed(values.reshape(height, -1), bits)
    across = len(rows) // height
    data = b"".join(b"\0" + rows[i * across : (i + 1) * across] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def palette_of(count: int) -> np.ndarray:
    """Colours [count, 3]."""
    return np.random.default_rng(count).integers(0, 256, (count, 3)).astype(np.uint8)


def tiff(
    values: np.ndarray,
    bits: int,
    photometric: int | None,
    order: str = "<",
    *,
    deflate: bool = False,
    planar: bool = False,
    tags: dict[int, tuple[str, tuple[int, ...]]] | None = None,
    data: bytes | None = None,
    strips: int = 1,
) -> bytes:
    """A TIFF of samples [H, W, n]; ``tags`` are more of them, as (struct's letter, values)."""
    height, width, samples = values.shape
    planes = np.moveaxis(values, -1, 0) if planar else values.reshape(1, height, -1)
    parts = [data] if data else [packed(plane.reshape(height, -1), bits, order) for plane in planes]
    parts = [zlib.compress(part) for part in parts] if deflate else parts
    entries: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("I", (width,)),
        257: ("I", (height,)),
        258: ("H", (bits,) * samples),
        259: ("H", (8 if deflate else 1,)),
        277: ("H", (samples,)),
        278: ("I", (height // strips,)),
        279: ("I", tuple(len(part) for part in parts)),
        284: ("H", (2 if planar else 1,)),
    } | (tags or {})
    if photometric is not None:
        entries[262] = ("H", (photometric,))
    offsets = tuple(itertools.accumulate([8, *map(len, parts[:-1])]))
    entries[273] = ("I", offsets)
    body = b"".join(parts) + bytes(sum(map(len, parts)) % 2)
    after = 8 + len(body) + 2 + 12 * len(entries) + 4
    table, rest = b"", b""
    for tag, (letter, numbers) in sorted(entries.items()):
        raw = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(raw) > 4:
            place, rest = struct.pack(f"{order}I", after + len(rest)), rest + raw + bytes(len(raw) % 2)
        else:
            place = raw.ljust(4, b"\0")
        table += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[letter], len(numbers)) + place
    mark = b"II*\0" if order == "<" else b"MM\0*"
    start = mark + struct.pack(f"{order}I", 8 + len(body))
    return start + body + struct.pack(f"{order}H", len(entries)) + table + bytes(4) + rest


def associated(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours that are multiplied by an alpha of 0 or all, and how they look over white."""
    values, twin = levels(4, 2**bits - 1)
    values[..., 3], twin[..., 3] = np.where(values[..., 3:] % 2, 2**bits - 1, 0)[..., 0], 0
    twin[..., 3] = np.where(values[..., 3] > 0, 255, 0)
    return values * (values[..., 3:] > 0), over_white(twin)


def subsampled(values: np.ndarray) -> Iterator[bytes]:
    """YCbCr in units of 2 x 2: four of Y, one of Cb and one of Cr."""
    full = np.pad(values, ((0, values.shape[0] % 2), (0, values.shape[1] % 2), (0, 0)), mode="edge")
    for y, x in itertools.product(range(0, full.shape[0], 2), range(0, full.shape[1], 2)):
        yield bytes([*full[y : y + 2, x : x + 2, 0].reshape(-1).tolist(), *full[y, x, 1:].tolist()])


def bmp(rows: np.ndarray, bits: int, compression: int = 0, masks: tuple[int, ...] = (), colours: bytes = b"") -> bytes:
    """A bitmap of rows [H, bytes], written upwards; ``masks`` ask for the longer header."""
    height = len(rows)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))[::-1]
    width = 23
    size = 108 if masks else 40
    offset = 14 + size + len(colours)
    head = struct.pack(
        "<IiiHHIIiiII", size, width, height, 1, bits, compression, rows.size, 0, 0, len(colours) // 4, 0
    )
    head += struct.pack("<4I", *masks).ljust(68, b"\0") if masks else b""
    return b"BM" + struct.pack("<IHHI", offset + rows.size, 0, 0, offset) + head + colours + rows.tobytes()
