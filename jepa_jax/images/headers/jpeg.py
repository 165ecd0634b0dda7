"""JPEG: Pillow opens those of 8 bits, and takes all of four channels for inverted ones, as Adobe writes them."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from jepa_jax.images.headers.samples import Samples, encoded, refused
from jepa_jax.images.jpeg_scans import PADDING, whole_jpeg


def jpeg_samples(image: Image.Image) -> Samples:
    """The samples of a JPEG."""
    if image.mode == "CMYK" and "adobe" not in image.info:
        raise refused("JPEG", "has four channels and no Adobe marker that says whether they are inverted")
    content = encoded(image)
    if content is not None and not content.endswith(PADDING):
        whole = whole_jpeg(content)
        if whole is not content and image.format == "JPEG":
            _read_from(image, whole)
    return Samples()


def _read_from(image: Any, content: bytes) -> None:
    """Have Pillow decode another content; the file that it has opened is closed, as it would be after decoding."""
    if getattr(image, "_exclusive_fp", False):
        image.fp.close()
    image.fp, image._exclusive_fp, image.filename = io.BytesIO(content), True, ""
