"""TGA: how many bits of a pixel are transparency stands in the header's last byte."""

from __future__ import annotations

from PIL import Image

from jepa_jax.images.headers.samples import Samples, encoded, refused

MAP_DEPTH, DEPTH, DESCRIPTOR = 7, 16, 17


def tga_samples(image: Image.Image) -> Samples:
    """The samples of a Targa file."""
    content = encoded(image)
    colours = image.palette.mode if image.mode == "P" and image.palette else image.mode
    if content is None or colours not in ("RGBA", "LA"):
        return Samples()
    if not content[DESCRIPTOR] & 0x0F:
        return Samples(opaque=True)
    if content[MAP_DEPTH if image.mode == "P" else DEPTH] == 16 and colours == "RGBA":
        raise refused("TGA", "has 5 bits per channel and a bit of transparency, which programs read in two ways")
    return Samples()
