"""Which formats' headers are looked into: Pillow's mode and the values do not tell all of what samples mean.

A picture is judged before it is decoded. What Pillow would not hand out as the file means it is refused there, with
one sentence that names the format, what is unusual, and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from jepa_jax.images.headers.jpeg import jpeg_samples
from jepa_jax.images.headers.jpeg2000 import jpeg2000_samples
from jepa_jax.images.headers.png import png_samples
from jepa_jax.images.headers.ppm import ppm_samples
from jepa_jax.images.headers.samples import Samples
from jepa_jax.images.headers.tga import tga_samples
from jepa_jax.images.headers.tiff import tiff_samples

BY_FORMAT: dict[str, Callable[[Image.Image], Samples]] = {
    "JPEG": jpeg_samples,
    "JPEG2000": jpeg2000_samples,
    "MPO": jpeg_samples,
    "PNG": png_samples,
    "PPM": ppm_samples,
    "TGA": tga_samples,
    "TIFF": tiff_samples,
}
"""Formats whose samples are not always what Pillow's mode says. GIF and WebP have 8 bits; AVIF's 10 and 12 bits and
BMP's 5 and 6 are scaled by their decoders."""


def samples_of(image: Image.Image) -> Samples:
    """What the header says, of a picture that may be decoded already; a picture made in memory has its mode alone.

    Raises:
        ImageError: its pixels could not be had as the file means them.
    """
    judge = BY_FORMAT.get(image.format or "")
    return judge(image) if judge else Samples()
