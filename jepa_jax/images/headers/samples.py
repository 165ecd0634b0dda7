"""What is to be known of a picture's samples beside Pillow's mode."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from jepa_jax.errors import ImageError

REMEDY = "convert it to an 8-bit PNG."


@dataclass(frozen=True)
class Samples:
    """How Pillow's values are to be read.

    Attributes:
        white: the value that stands for full intensity in one channel of more than 8 bits; 65535 where a 16-bit mode
            says nothing else.
        stretch: 8-bit values are multiplied by this, where fewer bits were only shifted into place.
        inverted: whether ``white`` stands for black and 0 for white.
        level: the value, as Pillow hands it out, that is transparent.
        alpha: the transparency that Pillow lost, mode L, or None.
        opaque: whether a fourth channel is there that means nothing.
        complete: asked of the decoded picture: whether the data covered all of it.
    """

    white: int | None = None
    stretch: float = 1.0
    inverted: bool = False
    level: int | None = None
    alpha: Image.Image | None = None
    opaque: bool = False
    complete: Callable[[Image.Image], bool] | None = None


def refused(kind: str, what: str) -> ImageError:
    """The error that names a format, what of it is unusual, and the remedy."""
    return ImageError(f"the {kind} {what}; {REMEDY}")


def channels_in_words(count: int) -> str:
    """Their number."""
    return f"{count} channel{'s' * (count != 1)}"


def encoded(image: Image.Image) -> bytes | None:
    """The whole file of a picture that is not decoded yet; None once Pillow has let go of it."""
    stream = getattr(image, "fp", None)
    if stream is None or not getattr(image, "tile", None):
        return None
    at = stream.tell()
    try:
        stream.seek(0)
        return stream.getvalue() if hasattr(stream, "getvalue") else stream.read()
    finally:
        stream.seek(at)


def read_from(image: Any, content: bytes) -> None:
    """Have Pillow decode another content; the file that it has opened is closed, as it would be after decoding."""
    if getattr(image, "_exclusive_fp", False):
        image.fp.close()
    image.fp, image._exclusive_fp, image.filename = io.BytesIO(content), True, ""
