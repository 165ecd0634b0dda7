"""The matrix products that pullbacks are made of: at one level of precision, for one platform."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import Precision

Kernels = Literal["auto", "off"]
"""Whether a layer may use a kernel that was written for the platform, where it has one."""

_PRESETS = {
    "bfloat16": jax.lax.DotAlgorithmPreset.BF16_BF16_F32,
    "tensorfloat32": jax.lax.DotAlgorithmPreset.TF32_TF32_F32,
    "bfloat16_3x": jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3,
}


@dataclass(frozen=True)
class Products:
    """How pullbacks multiply: called with an `jnp.einsum` formula and two operands.

    GPUs and TPUs get a dot algorithm: bfloat16 or TF32 operands, float32 sums; ``bfloat16_3x`` adds up three bfloat16
    products. A CPU has none of these units: operands are rounded and multiplied in float32, which has the level's
    error and not its speed. It is there to study a level, and to test it, without the device.

    Attributes:
        precision: the level.
        platform: of the devices that compute.
        kernels: ``auto`` lets a layer use its own kernel for the platform, ``off`` XLA's products alone.
    """

    precision: Precision = "float32"
    platform: Platform = "cpu"
    kernels: Kernels = "auto"

    def __call__(self, formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
        """The contraction, in the operands' dtype."""
        if self.precision in ("float32", "float64"):
            return jnp.einsum(formula, left, right, precision=jax.lax.Precision.HIGHEST)
        if self.platform == "cpu":
            return _emulated(self.precision, formula, left, right)
        preset = _PRESETS[self.precision]
        return jnp.einsum(formula, left, right, precision=preset, preferred_element_type=jnp.float32)


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
