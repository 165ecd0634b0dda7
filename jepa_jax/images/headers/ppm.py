"""PBM, PGM, PPM: Pillow scales every maximum to 255, or, in the mode I of grey above 8 bits, to 65535."""

from __future__ import annotations

from PIL import Image

from jepa_jax.images.headers.samples import Samples, refused


def ppm_samples(image: Image.Image) -> Samples:
    """The samples of a Netpbm file."""
    if image.mode == "F":
        raise refused("PFM", "holds floating point numbers, whose range is unknown")
    return Samples(white=65535 if image.mode == "I" else None)
