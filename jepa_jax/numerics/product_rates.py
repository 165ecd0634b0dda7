"""The rate of plain matrix products: what no Jacobian can exceed on a device."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jepa_jax.numerics.platforms import platform_of
from jepa_jax.numerics.precision import Precision
from jepa_jax.numerics.products import Products

Shape = tuple[int, int, int]
"""[m, k] x [k, n]."""


def product_rates(product: Callable[[], None], shape: Shape, repeats: int) -> list[float]:
    """Floating-point operations per second of each repeat, after one to warm up."""
    product()
    rates = []
    for _ in range(repeats):
        begun = time.perf_counter()
        product()
        rates.append(2 * shape[0] * shape[1] * shape[2] / (time.perf_counter() - begun))
    return rates


def jax_product(shape: Shape, precision: Precision) -> Callable[[], None]:
    """A product on JAX's device, at a level of precision; on the CPU those below float32 are emulated."""
    m, k, n = shape
    wide = precision == "float64"
    with jax.enable_x64(wide):
        dtype = jnp.float64 if wide else jnp.float32
        left, right = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype)
        products = Products(precision, platform_of())
        left, right = products.stored(left), products.stored(right)
        compiled = jax.jit(lambda a, b: products("mk,kn->mn", a, b)).lower(left, right).compile()

    def product() -> None:
        jax.block_until_ready(compiled(left, right))

    return product
