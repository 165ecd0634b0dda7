"""From a record's content to what an encoder scores of it. Imports no JAX: worker processes load it."""

from __future__ import annotations

import errno
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from jepa_jax.errors import ImageError
from jepa_jax.images.preprocessing import preprocess_rgb, to_rgb
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.images.sources.records import Reader, Unusable
from jepa_jax.images.views import Views, draw_views

MAX_PIXELS = 89_478_485
"""Pillow's own threshold of a likely decompression bomb: 256 MiB of RGB."""


FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "TGA", "JPEG2000", "PPM")
"""What is opened, whatever a file is called. Pillow knows more: PostScript, which it has Ghostscript run."""


OF_THE_MACHINE = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN)
)
"""Errors of a machine that is out of file handles or memory, or of a file system that is away: no image's own."""


@dataclass(frozen=True)
class InputRecipe:
    """What is scored of each picture: itself, views of it, or both.

    Attributes:
        preprocess: the encoder's recipe.
        plain: whether the picture itself is scored; it comes before its views.
        views: those that are drawn, or None.
    """

    preprocess: PreprocessSpec
    plain: bool = True
    views: Views | None = None

    @property
    def count(self) -> int:
        """Inputs per record."""
        return int(self.plain) + (self.views.count if self.views else 0)

    def inputs(self, image: Image.Image | np.ndarray, key: str) -> np.ndarray:
        """An encoder's inputs, float32 [count, crop, crop, 3]."""
        picture = to_rgb(image)
        parts = [preprocess_rgb(picture, self.preprocess)[None]] if self.plain else []
        if self.views:
            parts.append(draw_views(picture, key, self.views, self.preprocess))
        return np.concatenate(parts)


@dataclass(frozen=True)
class Decoded:
    """One record after decoding: what is scored of it, or the reason why there is nothing.

    Attributes:
        index: the record's.
        inputs: float32 [n, crop, crop, 3], or None.
        reason: why there are no inputs.
        unreadable: whether reading failed rather than decoding: the input itself may be gone.
        no_fault_of_its_own: whether it failed for an error `OF_THE_MACHINE`.
    """

    index: int
    inputs: np.ndarray | None
    reason: str = ""
    unreadable: bool = False
    no_fault_of_its_own: bool = False


def decode_record(index: int, key: str, locator: Any, reader: Reader, recipe: InputRecipe) -> Decoded:
    """Read and decode one record; what is wrong with it becomes a reason, never an exception."""
    if isinstance(locator, Unusable):
        return Decoded(index, None, locator.reason)
    try:
        return Decoded(index, decode(reader(locator), key, recipe))
    except ImageError as error:
        return Decoded(index, None, str(error))
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}"
        return Decoded(index, None, reason, unreadable=True, no_fault_of_its_own=error.errno in OF_THE_MACHINE)
    except Exception as error:  # a reader's library may raise anything at a damaged file
        return Decoded(index, None, f"it cannot be read: {type(error).__name__}: {error}", unreadable=True)


def decode(content: bytes | np.ndarray, key: str, recipe: InputRecipe) -> np.ndarray:
    """Encoded image or uint8 array to an encoder's inputs, [n, crop, crop, 3]; of an animation, the first frame.

    Raises:
        ImageError: it cannot be used; the message is the reason that a job records.
    """
    if isinstance(content, np.ndarray):
        return recipe.inputs(content, key)
    if not content:
        raise ImageError("the file is empty")
    try:
        with open_encoded(content) as image:
            if image.width * image.height > MAX_PIXELS:  # known from the header: nothing is decompressed yet
                raise ImageError(
                    f"the image has {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS}; shrink it"
                )
            return recipe.inputs(image, key)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"the image is too large: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("the content is no known image format") from error
    except Exception as error:  # what decoders raise at damaged files is no closed set
        raise ImageError(f"the image cannot be decoded: {error}") from error


def open_encoded(content: bytes) -> Image.Image:
    """Pillow's picture of an encoded one, its header read and nothing more."""
    Image.init()
    return Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
