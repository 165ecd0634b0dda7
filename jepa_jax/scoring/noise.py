"""How loud rounding is at each level of precision: measured on a few images, or taken as typical."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import numpy as np

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian import jacobian
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import LEVELS, Precision, levels_from

Noise = float | Mapping[Precision, float]
"""Relative noise of the Jacobian as `measure_noise` measures it: at the precision that is asked for, or at each
level by its name."""


def measure_noise(encoder: Encoder, batch: jax.Array | np.ndarray, precision: Precision) -> float:
    """Relative rounding noise of the Jacobian at a precision, as scores feel it, measured on a few images.

    Noise is larger along the directions of an embedding in which the Jacobian is larger, and small singular values
    suffer most from it: it is averaged with the weights 1 / sigma^2 that it has in a sum of logs. The reference is
    float32, and float64 for float32 itself.

    For encoders without null directions, whose images do not show their own noise: pass the result as ``noise`` to
    `jepa_jax.score`; with ``tolerance``, as ``{level: measure_noise(encoder, batch, level), ...}`` for every level
    from ``precision`` to ``float32``.

    Args:
        encoder: an `Encoder`; its layers' own rules are measured.
        batch: some preprocessed images [B, H, W, 3]; four are plenty.
        precision: the level below ``float64`` to measure.

    Returns:
        ``sqrt(K) |E^T u| / |J|``, with J the Jacobian, E its error, and u a typical direction; the root of the mean
        square over the images.

    Raises:
        ArgumentError: the precision is ``float64``, or unknown.
        BackendError: the backend computes wrong numbers.
    """
    exact = precision == "float32"
    if precision not in LEVELS[:-1]:
        raise ArgumentError(f"precision={precision!r} has no noise to measure; use one of {', '.join(LEVELS[:-1])}.")
    noises = []
    for image in np.asarray(batch, np.float32)[:, None]:  # one at a time: a whole Jacobian each, and no plan of memory
        found = np.asarray(jacobian(encoder, image, engine="rules", precision=precision)[0], np.float64)
        with float64_scope(exact):
            dtype = np.float64 if exact else np.float32
            wanted = np.asarray(jacobian(encoder, image.astype(dtype), engine="rules")[0], np.float64)
        noises.append(_noise_in_logs(found.reshape(len(found), -1), wanted.reshape(len(wanted), -1), encoder))
    return float(np.sqrt(np.mean(np.square(noises))))


def measured_levels(precision: Precision, platform: Platform, *, climbs: bool) -> list[Precision]:
    """The levels whose noise matters: the one asked for and, with ``climbs``, those above it that a platform has.

    float64 is none of them: there is nothing finer to measure it against.
    """
    reached: list[Precision] = levels_from(precision, platform) if climbs else [precision]
    return [level for level in reached if level != "float64"]


def _noise_in_logs(found: np.ndarray, wanted: np.ndarray, encoder: Encoder) -> float:
    """Of one Jacobian [K, D], relative to its size; null directions left out."""
    directions, values, _ = np.linalg.svd(wanted @ wanted.T)  # squares of the singular values
    kept = len(values) - encoder.null_direction_count
    along = np.sum((directions.T[:kept] @ (found - wanted)) ** 2, axis=-1)
    weights = 1 / np.maximum(values[:kept], values[0] * np.finfo(np.float32).eps)
    return float(np.sqrt(len(found) * np.sum(weights * along) / np.sum(weights) / np.sum(wanted**2)))


def noise_by_level(
    noise: Noise | None, precision: Precision, platform: Platform, *, climbs: bool
) -> dict[Precision, float]:
    """What a user says about noise, by level; empty where nothing is said, and what is typical of ViTs holds.

    Args:
        noise: as for `jepa_jax.score`.
        precision: the level that is asked for.
        platform: of the devices that compute.
        climbs: whether images may be scored again on the levels above it, each of which has a noise of its own.

    Raises:
        ArgumentError: a level that is used is missing, or a noise is none.
    """
    if noise is None:
        return {}
    given: dict[Precision, float] = dict(noise) if isinstance(noise, Mapping) else {precision: noise}
    for level, value in given.items():
        if level not in LEVELS or not (math.isfinite(value) and value >= 0):
            raise ArgumentError(
                f"noise={noise!r} has {value!r} for {level!r}; give a finite number, not negative, for each level "
                f"({', '.join(LEVELS)})."
            )
    used = measured_levels(precision, platform, climbs=climbs)
    missing = [level for level in used if level not in given]
    if missing:
        raise ArgumentError(
            f"noise={noise!r} says nothing of {', '.join(missing)}, where images may be scored too; pass one for each "
            f"level: noise={{level: jepa_jax.measure_noise(encoder, batch, level) for level in {used}}}."
        )
    return given
