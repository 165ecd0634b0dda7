"""TGA: how many bits of a pixel are transparency stands in the header's last byte."""

from __future__ import annotations

from PIL import Image

from jepa_jax.images.headers.samples import Samples, encoded, refused

DEPTH, DESCRIPTOR = 16, 17


def tga_samples(image: Image.Image) -> Samples:
    """The samples of a Targa file."""
    content = encoded(image)
    if content is None or image.mode not in ("RGBA", "LA"):
        return Samples()
    if not content[DESCRIPTOR] & 0x0F:
        return Samples(opaque=True)
    if content[DEPTH] == 16 and image.mode == "RGBA":
        raise refused("TGA", "has 5 bits per channel and a bit of transparency, which programs read in two ways")
    return Samples()
