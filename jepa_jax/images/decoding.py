"""From a record's content to what an encoder scores of it. Imports no JAX: worker processes load it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from jepa_jax.errors import ImageError
from jepa_jax.images.jpeg_scans import whole_jpeg
from jepa_jax.images.preprocessing import preprocess_rgb, to_rgb
from jepa_jax.images.reasons import of_the_machine, sentence, unopened
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.images.sources.records import Reader, Unusable
from jepa_jax.images.videos import VideoFile, read_clip
from jepa_jax.images.views import Views, draw_views

MAX_PIXELS = 89_478_485
"""Pillow's own threshold of a likely decompression bomb: 256 MiB of RGB."""

BYTES_PER_PIXEL = 16
"""What decoding takes at most: the picture, its copy with transparency, the white behind it, and both together."""

# Profiles and notes of more than a megabyte are no reason to refuse a picture; all of a file's together are bounded.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "TGA", "JPEG2000", "PPM")
"""What is opened, whatever a file is called. Pillow knows more: PostScript, which it has Ghostscript run."""


@dataclass(frozen=True)
class InputRecipe:
    """What is scored of each picture: itself, views of it, or both.

    Attributes:
        preprocess: the encoder's recipe. Where it has ``frames``, records are videos, of which there are no views.
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
        if self.preprocess.frames is not None:
            raise ImageError("it is a picture, and the encoder takes clips")
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
        inputs: float32 [n, crop, crop, 3], a clip [1, frames, crop, crop, 3], or None.
        reason: why there are no inputs.
        unreadable: whether reading failed rather than decoding: the input itself may be gone.
        bytes: of the encoded picture or video, where it is one and was read.
        no_fault_of_its_own: whether the machine is to blame (`reasons.of_the_machine`): no record goes better then.
    """

    index: int
    inputs: np.ndarray | None
    reason: str = ""
    unreadable: bool = False
    no_fault_of_its_own: bool = False
    bytes: int | None = None


Opener = Callable[[Any], bytes | np.ndarray | Image.Image | VideoFile]
"""As `Reader`, of pictures that may be opened already."""


def decode_record(index: int, key: str, locator: Any, reader: Reader | Opener, recipe: InputRecipe) -> Decoded:
    """Read and decode one record; what is wrong with it becomes a reason, never an exception."""
    if isinstance(locator, Unusable):
        return Decoded(index, None, locator.reason)
    size = None
    try:
        content = reader(locator)
        size = len(content) if isinstance(content, bytes) else None
        if isinstance(content, VideoFile):
            size = content.size()
        return Decoded(index, decode(content, key, recipe), bytes=size)
    except ImageError as error:
        return Decoded(index, None, str(error), bytes=size)
    except MemoryError as error:
        return Decoded(index, None, f"out of memory while decoding: {sentence(error)}", no_fault_of_its_own=True)
    except Exception as error:  # a reader's library may raise anything at a damaged file
        known = isinstance(error, OSError)
        what = error.strerror or sentence(error) if known else f"{type(error).__name__}: {sentence(error)}"
        blameless = of_the_machine(error)
        return Decoded(index, None, f"it cannot be read: {what}", unreadable=True, no_fault_of_its_own=blameless)


def decode(content: bytes | np.ndarray | Image.Image | VideoFile, key: str, recipe: InputRecipe) -> np.ndarray:
    """Encoded image, uint8 array or PIL image to an encoder's inputs, [n, crop, crop, 3]; of an animation, one frame.

    A video, encoded or still in its file, to a clip, [1, frames, crop, crop, 3], where that is what the encoder takes.

    Raises:
        ImageError: it cannot be used; the message is the reason that a job records.
        MemoryError: this machine has less memory than a picture of this size takes.
    """
    if recipe.preprocess.frames is not None and isinstance(content, bytes | VideoFile):
        return read_clip(content, recipe.preprocess)[None]
    if isinstance(content, VideoFile):
        raise ImageError("it is a video, and the encoder takes images")
    if isinstance(content, np.ndarray):
        return recipe.inputs(content, key)
    if isinstance(content, Image.Image):
        require_size(content.size)
        return recipe.inputs(content, key)
    if not content:
        raise ImageError("the file is empty")
    size = (0, 0)
    try:
        with open_encoded(content) as image:
            size = image.size
            require_size(size)  # known from the header: nothing is decompressed yet
            return recipe.inputs(image, key)
    except ImageError as error:
        if "out of memory" in str(error):
            raise _short_of_memory(size) from error
        raise
    except MemoryError as error:
        raise _short_of_memory(size) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"the image is too large: {sentence(error)}") from error
    except Image.UnidentifiedImageError as error:
        raise unopened(content) from error
    except Exception as error:  # what decoders raise at damaged files is no closed set
        raise ImageError(f"the image cannot be decoded: {sentence(error)}") from error


def require_size(size: tuple[int, int]) -> None:
    """Raise ImageError where a picture has more pixels than `MAX_PIXELS`."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(f"the image has {width} x {height} pixels, over the limit of {MAX_PIXELS}; shrink it")


def _short_of_memory(size: tuple[int, int]) -> Exception:
    """Whose fault it is that memory ran out: the machine's, unless there is enough for a picture of this size.

    A damaged file may ask for any amount, and fails on every machine: a job that stopped for it would never end.
    """
    width, height = size
    try:
        bytearray(BYTES_PER_PIXEL * width * height)
    except MemoryError:
        return MemoryError(f"the image has {width} x {height} pixels, which take {BYTES_PER_PIXEL} bytes each")
    return ImageError(f"the image cannot be decoded: it asks for more memory than its {width} x {height} pixels take")


def open_encoded(content: bytes) -> Image.Image:
    """Pillow's picture of an encoded one, its header read and nothing more.

    Raises:
        ImageError: it is a JPEG whose data do not cover it, or of too many scans; whatever Pillow raises.
    """
    Image.init()
    if content.startswith(b"\xff\xd8\xff"):
        content = whole_jpeg(content)
    return Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
