"""From a decoded picture, whatever its depth, to upright 8-bit RGB over white."""

from __future__ import annotations

import contextlib

import numpy as np
from PIL import ExifTags, Image

from jepa_jax.errors import ImageError
from jepa_jax.images.headers import Samples, samples_of
from jepa_jax.images.headers.samples import REMEDY

SIXTEEN_BITS = 65535

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a picture of each EXIF orientation upright."""


def eight_bit_rgb(image: Image.Image) -> Image.Image:
    """An upright 8-bit RGB picture; transparency is laid over white.

    Raises:
        ImageError: its header says what Pillow cannot give; its data end early; its range is unknown.
    """
    samples = samples_of(image)  # before it is decoded: Pillow forgets its header then
    image.load()
    if 0 in image.size:
        raise ImageError(f"the image has size {image.width} x {image.height}: it has no pixels.")
    if samples.complete and not samples.complete(image):
        raise ImageError("the image data end before the picture does.")
    picture = _eight_bits(image, samples)
    # Damaged metadata does not damage the picture: without an orientation that can be read, it stands as it is.
    orientation = 1
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in TURNS:
        picture = picture.transpose(TURNS[orientation])
    if _transparent(picture):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _transparent(picture: Image.Image) -> bool:
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        return True
    return picture.mode == "P" and picture.palette is not None and picture.palette.mode == "RGBA"


def _eight_bits(image: Image.Image, samples: Samples) -> Image.Image:
    """The same picture where it is of 8 bits and whole; else a new one of mode L, LA, RGB or RGBA."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _scaled(image, samples)
    elif image.mode in ("La", "RGBa"):  # colours multiplied by their transparency
        image = image.convert(image.mode.upper())
    elif image.mode == "LAB":
        raise ImageError(f"the image has mode {image.mode!r}: {REMEDY}")
    elif samples.stretch != 1.0:
        image = image.point([round(value * samples.stretch) for value in range(256)] * len(image.getbands()))
    elif samples.level is not None:
        image = image.copy()
        image.info["transparency"] = samples.level
    if samples.alpha:
        image = image.convert("RGB")
        image.info.pop("transparency", None)
        image.putalpha(samples.alpha)
    if samples.opaque:
        image = image.convert("L" if image.mode == "LA" else "RGB")
    return image


def _scaled(image: Image.Image, samples: Samples) -> Image.Image:
    """Grey of more than 8 bits to 8 bits, rounded, by what the header says is white; Pillow would clip it at 255."""
    values = np.asarray(image)
    white = samples.white or (SIXTEEN_BITS if image.mode.startswith("I;16") else None)
    if white is None or values.max() > white:
        raise ImageError(
            f"the image has mode {image.mode!r} with values from {values.min()} to {values.max()}, "
            "whose range is unknown; save it with 8 or 16 bits per channel."
        )
    wide = values.astype(np.uint32)
    grey = ((white - wide if samples.inverted else wide) * 255 + white // 2) // white
    picture = Image.fromarray(grey.astype(np.uint8))
    if samples.level is not None:
        picture.putalpha(Image.fromarray(np.where(values == samples.level, 0, 255).astype(np.uint8)))
    return picture
