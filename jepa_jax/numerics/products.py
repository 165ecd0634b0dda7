"""The matrix products that pullbacks are made of: at one level of precision, for one platform."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.numerics import products_gpu
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import Precision
from jepa_jax.numerics.triton import Parts, parts_of

Kernels = Literal["auto", "off"]
"""Whether a layer may use a kernel that was written for the platform, where it has one."""

_PRESETS: dict[Precision, jax.lax.DotAlgorithmPreset] = {
    "tensorfloat32": jax.lax.DotAlgorithmPreset.TF32_TF32_F32,
    "bfloat16_3x": jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3,
}

HALF: dict[Precision, type[np.generic]] = {"bfloat16": jnp.bfloat16, "float16": jnp.float16}
"""The levels at which cotangents and kernels are stored in 16 bits: writing the results of a product in float32 takes
an accelerator longer than the product."""


@dataclass(frozen=True)
class Products:
    """How pullbacks multiply, and what they store: called with a `jnp.einsum` formula and two operands.

    Sums are in float32 at every level below float64. GPUs and TPUs store and multiply 16 bits at ``bfloat16`` and
    ``float16``, and get a dot algorithm for TF32 and, on TPUs, for ``bfloat16_3x``, which adds up three bfloat16
    products. GPUs have a program of ours for these, and multiply in float32 what it does not take. A CPU
    has none of these units: what is stored there is rounded to the level's numbers, and multiplied in float32, which
    has the level's error (its range as well) and not its speed. It is there to study a level, and to test it, without
    the device.

    Attributes:
        precision: the level.
        platform: of the devices that compute.
        kernels: ``auto`` lets a layer use its own kernel for the platform, ``off`` XLA's products alone.
        khatri_rao: whether MLPs prepare the products of all weights that meet, see `jepa_jax.layers.mlp`.
    """

    precision: Precision = "float32"
    platform: Platform = "cpu"
    kernels: Kernels = "auto"
    khatri_rao: bool = False

    def __call__(self, formula: str, left: jax.Array, right: jax.Array | Parts) -> jax.Array:
        """The contraction, `stored`; what is `prepared` stands on the right."""
        if isinstance(right, tuple):
            return self._in_parts(formula, left, right)
        if self.precision not in HALF:
            return self.summed(formula, left, right)
        if self.platform == "cpu":
            return self.stored(self.summed(formula, left, right))
        return self._half(formula, left, right, HALF[self.precision])

    def summed(self, formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
        """The contraction as it is summed up, in float32 (or float64), and not rounded to what is stored."""
        if self.precision in ("float32", "float64"):
            if self.platform != "cpu" and _has_one_term(formula, left):
                return _outer(formula, left, right)
            return jnp.einsum(formula, left, right, precision=jax.lax.Precision.HIGHEST)
        if self.platform == "cpu":
            return _emulated(self.precision, formula, left, right)
        if self.precision in HALF:
            return self._half(formula, left, right, np.float32)
        if self.platform == "gpu" and self.precision == "bfloat16_3x":
            return self._in_parts(formula, left, right)
        if _is_thin(formula, left, right):
            return jnp.einsum(formula, left, right, precision=jax.lax.Precision.HIGHEST)
        preset = _PRESETS[self.precision]
        return jnp.einsum(formula, left, right, precision=preset, preferred_element_type=jnp.float32)

    def stored(self, values: jax.Array) -> jax.Array:
        """Values as cotangents are stored: in 16 bits at the `HALF` levels, and unchanged at the others."""
        if self.precision not in HALF:
            return values
        return _rounded(self.precision, values) if self.platform == "cpu" else values.astype(HALF[self.precision])

    def prepared(self, values: jax.Array) -> jax.Array | Parts:
        """The right operand of a product, `stored`, or taken apart where it would be taken apart each time."""
        if (self.precision, self.platform, self.kernels) == ("bfloat16_3x", "gpu", "auto"):
            return parts_of(values, 2, jnp.bfloat16)
        return self.stored(values)

    def of_one_token(self) -> Products:
        """Those of a single token, which cost nothing beside the others', in float32 at every level below float64.

        Behind a class token all rows of the Jacobian go through a few numbers there, its attention's weights and its
        norms: what rounds them moves all singular values alike, and a score by K times as much.
        """
        return dataclasses.replace(self, precision="float32") if self.precision != "float64" else self

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the forward pass."""
        return 8 if self.precision == "float64" else 4

    @property
    def stored_itemsize(self) -> int:
        """Bytes of a number as it is `stored`."""
        return 2 if self.precision in HALF and self.platform != "cpu" else self.itemsize

    def kernel(self, values: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """A kernel of the way back, [a, b], as it is stored, and what its products are to be multiplied by.

        float16 has a narrow range. There the kernel is divided by a power of two, so that it keeps the size of what
        it is applied to: its singular values are about one in their root mean square.
        """
        if self.precision != "float16":
            return self.stored(values), None
        size = jnp.linalg.norm(values) / min(values.shape) ** 0.5
        scale = _power_of_two(size)
        return self.stored(values / scale), scale

    def _in_parts(self, formula: str, left: jax.Array, right: jax.Array | Parts) -> jax.Array:
        operands = None
        if self.kernels == "auto" and not _is_thin(formula, left, right[0] if isinstance(right, tuple) else right):
            operands = products_gpu.matrices(formula, left, right)
        if operands is not None:
            return products_gpu.multiply(operands)
        if isinstance(right, tuple):
            right = functools.reduce(jnp.add, (part.astype(left.dtype) for part in right))
        # Nothing that XLA has for the level adds up as exactly as the level promises.
        return jnp.einsum(formula, left, right, precision=jax.lax.Precision.HIGHEST)

    def _half(self, formula: str, left: jax.Array, right: jax.Array, result: Any) -> jax.Array:
        operands = left.astype(HALF[self.precision]), right.astype(HALF[self.precision])
        # Exact products of 16-bit numbers: no level of precision that the caller may have set has a say in them.
        return jnp.einsum(formula, *operands, precision=jax.lax.Precision.DEFAULT, preferred_element_type=result)


def _is_thin(formula: str, left: jax.Array, right: jax.Array) -> bool:
    """Whether a product has one row, one column, or one term in each sum.

    Such products are no work for matrix units. XLA makes sums of them, and sums of products that are each rounded to
    bfloat16, as if ``bfloat16_3x`` were ``bfloat16`` (jax 0.11.2, for GPUs).
    """
    of_left, of_right, result = re.split(",|->", formula.replace("...", "."))
    sizes = dict(zip(of_left.lstrip("."), left.shape[left.ndim - len(of_left.lstrip(".")) :], strict=True))
    sizes["."] = math.prod(left.shape[: left.ndim - len(of_left.lstrip("."))])
    both = set(of_left) & set(of_right)
    shared, summed = (math.prod(sizes[axis] for axis in axes) for axes in (both, both - set(result)))
    return 1 in (left.size // shared, right.size // shared, summed)


def _has_one_term(formula: str, left: jax.Array) -> bool:
    """Whether each sum of a contraction has one term, as behind a single token."""
    if "..." in formula:
        return False
    of_left, of_right, result = re.split(",|->", formula)
    return all(left.shape[of_left.index(axis)] == 1 for axis in (set(of_left) & set(of_right)) - set(result))


def _outer(formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """A contraction that `_has_one_term`, by one multiplication, which is fused with what is done to its result.

    As a matrix product it would be written in float32 and turned, on an accelerator.
    """
    *operands, result = re.split(",|->", formula)

    def placed(axes: str, values: jax.Array) -> jax.Array:
        sizes = dict(zip(axes, values.shape, strict=True))
        kept = [axis for axis in axes if axis in result]
        turned = values.reshape([sizes[axis] for axis in kept]).transpose(
            [kept.index(axis) for axis in result if axis in kept]
        )
        return turned.reshape([sizes.get(axis, 1) for axis in result])

    return placed(operands[0], left) * placed(operands[1], right)


def normalized(products: Products, cotangent: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """A cotangent [A, R, d] as it enters what is stored in 16 bits, and what it was divided by.

    In float16 its largest number becomes about one, which leaves as many powers of two above as below.
    """
    entering = products.of_one_token() if cotangent.shape[0] == 1 else products
    if products.precision != "float16":
        return entering.stored(cotangent), None
    scale = _power_of_two(jnp.max(jnp.abs(cotangent)))
    return entering.stored(cotangent / scale), scale


def _power_of_two(size: jax.Array) -> jax.Array:
    """The one at or below a size; one half for zero. Exact, which a power and a logarithm need not be."""
    return jnp.ldexp(jnp.ones_like(size), jnp.frexp(size)[1] - 1)


def _rounded(precision: Precision, values: jax.Array) -> jax.Array:
    """To the nearest number that a 16-bit level has. XLA may drop a cast there and back; this it keeps."""
    if precision == "bfloat16":
        return jax.lax.reduce_precision(values, 8, 7)
    # `reduce_precision` would make zeros of the numbers below the smallest normal one, 2^-14.
    subnormal = jnp.round(values * 2.0**24) * 2.0**-24
    return jnp.where(jnp.abs(values) < 2.0**-14, subnormal, jax.lax.reduce_precision(values, 5, 10))


def _emulated(precision: Precision, formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
    exact = functools.partial(jnp.einsum, formula, precision=jax.lax.Precision.HIGHEST)
    if precision in HALF:
        return exact(_rounded(precision, left), _rounded(precision, right))
    if precision == "tensorfloat32":
        return exact(jax.lax.reduce_precision(left, 8, 10), jax.lax.reduce_precision(right, 8, 10))
    high_left, high_right = (jax.lax.reduce_precision(operand, 8, 7) for operand in (left, right))
    low_left = jax.lax.reduce_precision(left - high_left, 8, 7)
    low_right = jax.lax.reduce_precision(right - high_right, 8, 7)
    return exact(high_left, high_right) + (exact(high_left, low_right) + exact(low_left, high_right))
