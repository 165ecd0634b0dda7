"""PNG: what is transparent is told in the file's own depth, and image data may end before the picture does."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from jepa_jax.errors import ImageError
from jepa_jax.images.headers.samples import Samples, encoded, refused

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type."""

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps, of the seven passes of an interlaced file."""

PIECE = 2**20
"""Bytes that are decompressed at a time."""


def png_samples(image: Image.Image) -> Samples:
    """The samples of a PNG."""
    transparent = image.info.get("transparency")
    deep = image.mode.startswith("I;16")
    level = transparent if deep and isinstance(transparent, int) else None
    white = 65535 if deep else None
    content = encoded(image)
    if content is None:  # it is decoded: of colours of 16 bits the upper 8 are left
        if isinstance(transparent, tuple) and max(transparent) > 255:
            raise ImageError("the PNG has a transparent colour of 16 bits and is decoded already: pass it unread.")
        return Samples(white=white, level=level)
    if image.mode == "P" and image.palette is None:
        raise refused("PNG", "has colour numbers and no palette")
    width, height, bits, colour, *_, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if bits in (2, 4) and image.mode == "L" and isinstance(transparent, int):
        level = transparent * 255 // (2**bits - 1)  # Pillow scales the pixels and not this
    alpha = None
    if bits == 16 and image.mode == "RGB" and isinstance(transparent, tuple):
        alpha = _alpha(image, content, transparent)

    def complete(decoded: Image.Image) -> bool:
        last = decoded.crop((0, decoded.height - 1, decoded.width, decoded.height))
        if not interlaced and np.any(np.asarray(last)):  # Pillow leaves zeros where there are no data
            return True
        return _holds(content, _bytes_of(width, height, bits * CHANNELS[colour], bool(interlaced)))

    return Samples(white=white, level=level, alpha=alpha, complete=complete)


def _alpha(image: Image.Image, content: bytes, colour: tuple[int, int, int]) -> Image.Image:
    """Transparency by a 16-bit colour: the lower bytes, which Pillow's own picture does not hold, count as well."""
    matches = np.ones((image.height, image.width), bool)
    for raw_mode, values in (("RGB;16B", [c >> 8 for c in colour]), ("RGB;16L", [c & 255 for c in colour])):
        with Image.open(io.BytesIO(content), formats=["PNG"]) as part:
            part.tile = [tile._replace(args=raw_mode) for tile in part.tile]
            matches &= np.all(np.asarray(part) == np.array(values, np.uint8), axis=-1)
    return Image.fromarray(np.where(matches, 0, 255).astype(np.uint8))


def _bytes_of(width: int, height: int, pixel: int, interlaced: bool) -> int:
    """Of the decompressed image data, for pixels of so many bits: each row begins with the number of its filter."""
    if not interlaced:
        return height * (1 + (width * pixel + 7) // 8)
    total = 0
    for x, y, across, down in ADAM7:
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        total += rows * (1 + (columns * pixel + 7) // 8) if columns > 0 and rows > 0 else 0
    return total


def _holds(content: bytes, size: int) -> bool:
    """Whether the image data decompress to so many bytes."""
    stream, found = zlib.decompressobj(), 0
    for data in _image_data(content):
        while data and found < size and not stream.eof:
            found += len(stream.decompress(data, PIECE))
            data = stream.unconsumed_tail
    return found + len(stream.flush()) >= size if found < size else True


def _image_data(content: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        if kind == b"IDAT":
            yield content[at + 8 : at + 8 + length]
        at += 12 + length
