"""From a picture to an encoder's input: the recipe that the encoder was published with.

Equal to the ``transformers`` image processors on their Pillow path (tests compare them), with two
departures where those lose the picture: grey of more than 8 bits is scaled to 8 by what its header says
(``transformers`` clips it, which turns almost every pixel white), and an EXIF orientation is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jepa_jax.errors import ArgumentError, ImageError
from jepa_jax.images.eight_bits import eight_bit_rgb
from jepa_jax.images.reasons import sentence
from jepa_jax.images.recipe import PreprocessSpec

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

MAX_RESIZED_PIXELS = 2**25
"""A picture so elongated that resizing its shorter side passes this is refused (34 million pixels, 100 MB)."""


def preprocess(images: Sequence[Image.Image | np.ndarray], spec: PreprocessSpec) -> np.ndarray:
    """Turn pictures into one input batch.

    Args:
        images: PIL images of any mode, or uint8 arrays [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
        spec: the encoder's recipe.

    Returns:
        float32 [B, crop, crop, 3], normalised.

    Raises:
        ImageError: an image cannot be used; the message says which and why.
    """
    batch = np.empty((len(images), spec.crop, spec.crop, 3), np.float32)
    for i, image in enumerate(images):
        try:
            batch[i] = preprocess_one(image, spec)
        except ImageError as error:
            raise ImageError(f"images[{i}]: {error}") from error
    return batch


def preprocess_clips(clips: Any, spec: PreprocessSpec) -> np.ndarray:
    """Turn clips into one input batch.

    Args:
        clips: for each its frames, as many as the recipe has, as `preprocess` takes pictures.
        spec: the encoder's recipe.

    Returns:
        float32 [B, frames, crop, crop, 3], normalised.

    Raises:
        ArgumentError: these are no clips, or of another number of frames.
        ImageError: a frame cannot be used.
    """
    shape = getattr(clips, "shape", None)
    if isinstance(clips, Image.Image) or (shape is not None and len(shape) != 5):
        what = "one picture" if shape is None else f"an array of shape {shape}"
        raise ArgumentError(
            f"images is {what}, and the encoder takes clips: pass [B, T, H, W, 3], or a list of clips."
        )
    batch = np.empty((len(clips), *spec.shape), np.float32)
    for i, clip in enumerate(clips):
        if isinstance(clip, Image.Image) or (isinstance(clip, np.ndarray) and clip.ndim != 4):
            raise ArgumentError(
                f"images[{i}] is one picture, and the encoder takes clips: pass its frames [T, H, W, 3]."
            )
        if len(clip) != spec.frames:
            raise ArgumentError(
                f"images[{i}] has {len(clip)} frames, and the encoder takes {spec.frames}: choose so many, or load it "
                f"with frames={len(clip)}."
            )
        try:
            batch[i] = preprocess(list(clip), spec)
        except ImageError as error:
            raise ImageError(f"images[{i}], frame {str(error).removeprefix('images')}") from error
    return batch


def preprocess_one(image: Image.Image | np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """One picture to float32 [crop, crop, 3]: resize, cut the middle, normalise."""
    return preprocess_rgb(to_rgb(image), spec)


def preprocess_rgb(picture: Image.Image, spec: PreprocessSpec) -> np.ndarray:
    """The same for a picture that `to_rgb` has returned."""
    resized = _resized(*picture.size, spec)
    picture = picture.resize(resized, _FILTERS[spec.interpolation])
    left, top = ((side - spec.crop) // 2 for side in resized)
    cut = np.asarray(picture)[top : top + spec.crop, left : left + spec.crop]
    pixels = cut.astype(np.float32)
    pixels /= np.float32(255)  # for every one of the 256 values what transformers' float64 product rounds to
    rows = pixels.reshape(spec.crop, -1)  # a row of pixels at a time is three times as fast as a pixel at a time
    rows -= np.tile(np.array(spec.mean, np.float32), spec.crop)
    rows /= np.tile(np.array(spec.std, np.float32), spec.crop)
    return pixels


def _resized(width: int, height: int, spec: PreprocessSpec) -> tuple[int, int]:
    """Width and height after the resize, before the cut."""
    short, long = min(width, height), max(width, height)
    if spec.squeeze:
        return spec.crop, spec.crop
    resized_long = int(spec.resize_shortest * long / short)
    if spec.resize_shortest * resized_long > MAX_RESIZED_PIXELS:
        raise ImageError(
            f"the image is {width} x {height}: too elongated to resize its shorter side to "
            f"{spec.resize_shortest} pixels; crop it first."
        )
    return (spec.resize_shortest, resized_long) if width <= height else (resized_long, spec.resize_shortest)


def to_rgb(image: Image.Image | np.ndarray) -> Image.Image:
    """An upright 8-bit RGB picture; transparency is laid over white."""
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    elif not isinstance(image, Image.Image):
        raise ImageError(f"the image is a {type(image).__name__}; pass a PIL image or a uint8 array [H, W, 3].")
    try:
        return eight_bit_rgb(image)  # decodes a file that was opened and not read yet
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # what decoders raise at damaged files is no closed set
        raise ImageError(f"the image cannot be decoded: {sentence(error)}") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(
            f"the image array has dtype {array.dtype}; pass uint8 values 0..255. An array that is already "
            "preprocessed goes to the encoder directly."
        )
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[-1] in (3, 4)):
        raise ImageError(
            f"the image array has shape {array.shape}; it must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]."
        )
    return Image.fromarray(array)
