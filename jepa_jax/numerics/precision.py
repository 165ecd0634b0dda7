"""The levels of precision at which pullbacks' products are taken, from the fastest to the most exact.

A level is the precision of the *pullbacks'* matrix products, and at the two 16-bit levels of what is stored between
them. The forward pass, and all that it decides (attention weights, activation derivatives), is in float32 at every
level below float64: an error there would be an error of the point at which the Jacobian is taken.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from jepa_jax.errors import ArgumentError
from jepa_jax.numerics.platforms import Platform

Precision = Literal["bfloat16", "float16", "tensorfloat32", "bfloat16_3x", "float32", "float64"]

LEVELS: tuple[Precision, ...] = get_args(Precision)
"""From the fastest to the most exact."""

AskedPrecision = Literal["auto", Precision]
"""A level, or whichever is fastest within a tolerance."""

FASTEST: dict[Platform, Precision] = {"cpu": "float32", "gpu": "float16", "tpu": "bfloat16"}
"""Where ``auto`` begins. GPUs multiply float16 as fast as bfloat16, with an eighth of its error; a CPU has no units
for anything faster than float32."""

ROUNDING: dict[Precision, float] = {
    "bfloat16": 2.0**-9,
    "float16": 2.0**-12,
    "tensorfloat32": 2.0**-12,
    "bfloat16_3x": 2.0**-18.5,
    "float32": 2.0**-24,
    "float64": 2.0**-53,
}
"""Relative rounding of a product's operands: half a unit in the last place for TF32's 10 bits; of three bfloat16
products, what is typically left of the terms that they drop."""

_NOISE_UNITS: dict[Precision, float] = {
    "bfloat16": 3.0,
    "float16": 3.0,
    "tensorfloat32": 2.5,
    "bfloat16_3x": 3.5,
    "float32": 8.0,
    "float64": 8.0,
}
NOISE: dict[Precision, float] = {level: _NOISE_UNITS[level] * unit for level, unit in ROUNDING.items()}
"""Typical noise of a ViT relative to its Jacobian, as `jepa_jax.measure_noise` measures it: for encoders without
null directions, until it has measured theirs. Of twelve encoders of 1 to 4 blocks, trained and random, 2.3 to 3.7
units at the first two levels, whose cotangents are rounded as well, 1.7 to 2.7, 2.4 to 4 and 4.1 to 10 at the next."""


def check_precision(precision: str) -> None:
    """Refuse an unknown level."""
    if precision not in LEVELS:
        raise ArgumentError(f"precision={precision!r} is unknown; use one of {', '.join(LEVELS)}.")


def as_coarse_as(precision: Precision, dtype: Any) -> Precision:
    """The level by which a function rounds that computes in numbers of a dtype, whose products are of a level."""
    own = next((level for level in LEVELS if level == np.dtype(dtype).name), LEVELS[0])
    return LEVELS[min(LEVELS.index(precision), LEVELS.index(own))]


def working_dtype(precision: Precision) -> type[np.floating[Any]]:
    """What parameters, images and cotangents are stored in."""
    return np.float64 if precision == "float64" else np.float32


def levels_from(precision: Precision, platform: Platform) -> list[Precision]:
    """A level and all that are more exact, as far as a platform has them: TPUs have no float16."""
    return [level for level in LEVELS[LEVELS.index(precision) :] if (platform, level) != ("tpu", "float16")]
