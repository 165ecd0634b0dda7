"""PBM, PGM, PPM: the header tells the maximum, from 1 to 65535.

Pillow scales each to 255, or, in the mode I of grey above 8 bits, to 65535; but at three seconds a megapixel.
So samples in binary are scaled here, and Pillow gets them in 8 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from jepa_jax.errors import ImageError
from jepa_jax.images.headers.samples import Samples, encoded, read_from, refused


def ppm_samples(image: Image.Image) -> Samples:
    """The samples of a Netpbm file."""
    if image.mode == "F":
        raise refused("PFM", "holds floating point numbers, whose range is unknown")
    content = encoded(image)
    largest = _binary_maximum(image)
    if content is not None and largest:
        _scale(image, content, largest)
    return Samples(white=65535 if image.mode == "I" else None)


def _binary_maximum(image: Any) -> int | None:
    """The maximum of grey or RGB in binary that is not 255; None of all else."""
    if len(tiles := getattr(image, "tile", [])) != 1 or image.mode not in ("L", "I", "RGB"):
        return None
    if tiles[0].codec_name == "ppm":
        return tiles[0].args[-1]
    return 65535 if tiles[0].args == "I;16B" else None


def _scale(image: Any, content: bytes, largest: int) -> None:
    offset, count = image.tile[0].offset, image.width * image.height * (3 if image.mode == "RGB" else 1)
    wide = np.dtype(np.uint8 if largest < 256 else ">u2")
    if len(content) - offset < count * wide.itemsize:
        raise ImageError("the image data end before the picture does.")
    values = np.frombuffer(content, wide, count, offset)
    scaled = np.minimum(255, np.rint(np.arange(2 ** (8 * wide.itemsize)) / largest * 255)).astype(np.uint8)
    mode = "RGB" if image.mode == "RGB" else "L"
    read_from(image, scaled[values].tobytes())
    image._mode = mode
    image.tile = [image.tile[0]._replace(codec_name="raw", offset=0, args=(mode, 0, 1))]
