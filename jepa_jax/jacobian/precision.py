"""The ladder of precisions, and the products of each rung.

A rung is the precision of the *pullbacks'* matrix products. The forward pass, and all that it decides
(attention weights, slopes of activations), is in float32 on every rung below float64: an error there
would be an error of the point at which the Jacobian is taken.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp

from jepa_jax.errors import ArgumentError

Precision = Literal["bfloat16", "tensorfloat32", "bfloat16_3x", "float32", "float64"]

LADDER: tuple[Precision, ...] = get_args(Precision)
"""Rungs from the fastest to the most exact."""

ROUNDING: dict[Precision, float] = {
    "bfloat16": 2.0**-9,
    "tensorfloat32": 2.0**-12,
    "bfloat16_3x": 2.0**-18.5,
    "float32": 2.0**-24,
    "float64": 2.0**-53,
}
"""Relative rounding of a product's operands: half a unit in the last place for TF32's 10 bits; of three bfloat16
products, what is typically left of the terms that they drop."""

_NOISE_UNITS: dict[Precision, float] = {
    "bfloat16": 2.5,
    "tensorfloat32": 2.5,
    "bfloat16_3x": 3.5,
    "float32": 8.0,
    "float64": 8.0,
}
NOISE: dict[Precision, float] = {rung: _NOISE_UNITS[rung] * unit for rung, unit in ROUNDING.items()}
"""Typical noise of a ViT relative to its Jacobian, as `jepa_jax.calibrate_noise` measures it: for encoders without
null directions, until it has measured theirs. Of nine encoders of 1 to 4 blocks, trained and random, 1.7 to 2.6
units at the first two rungs, 2.4 to 4 and 4.1 to 10 at the next."""

_PRESETS = {
    "bfloat16": jax.lax.DotAlgorithmPreset.BF16_BF16_F32,
    "tensorfloat32": jax.lax.DotAlgorithmPreset.TF32_TF32_F32,
    "bfloat16_3x": jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3,
}


class Einsum(Protocol):
    """`jnp.einsum` of two operands, in some precision."""

    def __call__(self, formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
        """The contraction, in the operands' dtype."""
        ...


def check_precision(precision: str) -> None:
    """Refuse an unknown rung."""
    if precision not in LADDER:
        raise ArgumentError(f"precision={precision!r} is unknown; use one of {', '.join(LADDER)}.")


def working_dtype(precision: Precision) -> Any:
    """What parameters, images and cotangents are stored in."""
    return jnp.float64 if precision == "float64" else jnp.float32


def next_rung(precision: Precision) -> Precision | None:
    """One step more exact, or None at the top."""
    place = LADDER.index(precision) + 1
    return LADDER[place] if place < len(LADDER) else None


def einsum_of(precision: Precision) -> Einsum:
    """The products of a rung, in hardware where the backend has them, else emulated.

    GPUs and TPUs get a dot algorithm: bfloat16 or TF32 operands, float32 sums; ``bfloat16_3x`` adds up three
    bfloat16 products. A CPU has none of these units: operands are rounded and multiplied in float32, which has
    the rung's error and not its speed. It is there to study a rung, and to test it, without the device.
    """
    if precision in ("float32", "float64"):
        return functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    if jax.default_backend() != "cpu":
        return functools.partial(jnp.einsum, precision=_PRESETS[precision], preferred_element_type=jnp.float32)
    return functools.partial(_emulated, precision)


def _emulated(precision: Precision, formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
    exact = functools.partial(jnp.einsum, formula, precision=jax.lax.Precision.HIGHEST)
    if precision == "tensorfloat32":
        return exact(jax.lax.reduce_precision(left, 8, 10), jax.lax.reduce_precision(right, 8, 10))
    high_left, high_right = (jax.lax.reduce_precision(operand, 8, 7) for operand in (left, right))
    if precision == "bfloat16":
        return exact(high_left, high_right)
    low_left = jax.lax.reduce_precision(left - high_left, 8, 7)
    low_right = jax.lax.reduce_precision(right - high_right, 8, 7)
    return exact(high_left, high_right) + (exact(high_left, low_right) + exact(low_left, high_right))
