"""From a record's content to an encoder's input. Imports no JAX: worker processes load it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from jepa_jax.encoders.preprocessing import preprocess_one
from jepa_jax.encoders.specs import PreprocessSpec
from jepa_jax.errors import ImageError
from jepa_jax.jobs.sources.records import Reader, Unusable

MAX_PIXELS = 89_478_485
"""Pillow's own threshold of a likely decompression bomb: 256 MiB of RGB."""


@dataclass(frozen=True)
class Decoded:
    """One record after decoding: an image, or the reason why there is none.

    Attributes:
        index: the record's.
        image: float32 [crop, crop, 3], or None.
        reason: why there is no image.
        unreadable: whether reading failed rather than decoding: the input itself may be gone.
    """

    index: int
    image: np.ndarray | None
    reason: str = ""
    unreadable: bool = False


def decode_record(index: int, locator: Any, reader: Reader, spec: PreprocessSpec) -> Decoded:
    """Read and decode one record; what is wrong with it becomes a reason, never an exception."""
    if isinstance(locator, Unusable):
        return Decoded(index, None, locator.reason)
    try:
        return Decoded(index, decode(reader(locator), spec))
    except ImageError as error:
        return Decoded(index, None, str(error))
    except OSError as error:
        return Decoded(index, None, f"it cannot be read: {error.strerror or error}", unreadable=True)
    except Exception as error:  # a reader's library may raise anything at a damaged file
        return Decoded(index, None, f"it cannot be read: {type(error).__name__}: {error}", unreadable=True)


def decode(content: bytes | np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Encoded image or uint8 array to encoder input, float32 [crop, crop, 3]; of an animation, the first frame.

    Raises:
        ImageError: it cannot be used; the message is the reason that a job records.
    """
    if isinstance(content, np.ndarray):
        return preprocess_one(content, spec)
    if not content:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:  # known from the header: nothing is decompressed yet
                raise ImageError(
                    f"the image has {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS}; shrink it"
                )
            return preprocess_one(image, spec)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"the image is too large: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("the content is no known image format") from error
    except Exception as error:  # what decoders raise at damaged files is no closed set
        raise ImageError(f"the image cannot be decoded: {error}") from error
