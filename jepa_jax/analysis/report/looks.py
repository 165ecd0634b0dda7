"""What is plainly the matter with a picture: dark, blank, blurred, tiny. Measured on pixels, without any model."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jepa_jax.analysis.complexity import bits_per_pixel
from jepa_jax.errors import ImageError
from jepa_jax.images.preprocessing import preprocess_rgb
from jepa_jax.scored.image_reader import ImageReader, denormalised

SIDE = 512
"""Pixels of the longer side, at most, of the copy in grey that is looked at."""

DARK = 0.32
"""Brightness, of 0 to 1, that 99% of a dark picture's pixels lie below."""

BLANK = 0.04
"""Brightness, of 0 to 1, by which the middle 98% of a blank picture's pixels differ at most."""

BLURRED = 12.0
"""Variance of the Laplacian of the grey copy, in 256 steps of brightness, below which a picture is blurred."""

RULES = {
    "dark": f"99% of its pixels are darker than {DARK:.0%} of white",
    "blank": f"98% of its pixels differ by at most {BLANK:.0%} of white",
    "blurred": f"not dark or blank, and the variance of its Laplacian is below {BLURRED:g}, at {SIDE} pixels at most",
    "tiny": "its shorter side is less than half of the encoder's input",
}
"""What each word means, literally."""


@dataclass(frozen=True)
class Look:
    """One picture.

    Attributes:
        width, height: pixels, before any resize.
        bits: JPEG bits per pixel of what the encoder sees; NaN where that was not asked for.
        faults: which words of `RULES` apply.
    """

    width: int
    height: int
    bits: float
    faults: tuple[str, ...]


def look_at(reader: ImageReader, keys: Sequence[str], workers: int = 2) -> list[Look | None]:
    """Every picture of some keys, once, in full; None where one cannot be read."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda key: _look(reader, key), keys))


def _look(reader: ImageReader, key: str) -> Look | None:
    picture = reader.whole(key)
    if picture is None:
        return None
    try:
        seen = denormalised(preprocess_rgb(picture, reader.recipe), reader.recipe)
    except ImageError:
        return None
    return Look(*picture.size, bits_per_pixel(seen), faults_of(picture, reader.recipe.crop))


def faults_of(picture: Image.Image, input_side: int, size: tuple[int, int] | None = None) -> tuple[str, ...]:
    """Which words of `RULES` apply to an RGB picture.

    Args:
        picture: the whole of it, at any size.
        input_side: of the encoder, pixels.
        size: width and height that it has in the file; by default those of ``picture``.
    """
    grey = picture.convert("L")
    grey.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32)
    darkest, brightest = np.quantile(values, [0.01, 0.99]) / 255
    dark, blank = brightest < DARK, brightest - darkest <= BLANK
    found = {
        "dark": dark,
        "blank": blank,
        "blurred": not (dark or blank) and min(values.shape) > 2 and _laplacian_variance(values) < BLURRED,
        "tiny": 2 * min(size or picture.size) < input_side,
    }
    return tuple(word for word in RULES if found[word])


def _laplacian_variance(values: np.ndarray) -> float:
    middle = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return float(np.var(around - 4 * middle))
