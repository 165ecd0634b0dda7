"""JPEG: Pillow opens those of 8 bits, and takes all of four channels for inverted ones, as Adobe writes them."""

from __future__ import annotations

from PIL import Image

from jepa_jax.images.headers.samples import Samples, encoded, read_from, refused
from jepa_jax.images.jpeg_scans import PADDING, whole_jpeg


def jpeg_samples(image: Image.Image) -> Samples:
    """The samples of a JPEG."""
    if image.mode == "CMYK" and "adobe" not in image.info:
        raise refused("JPEG", "has four channels and no Adobe marker that says whether they are inverted")
    content = encoded(image)
    if content is not None and not content.endswith(PADDING):
        whole = whole_jpeg(content)
        if whole is not content and image.format == "JPEG":
            read_from(image, whole)
    return Samples()
