"""The rate of plain matrix products: what no Jacobian can exceed on a device."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

from jepa_jax.numerics.platforms import Platform, platform_of
from jepa_jax.numerics.precision import Precision
from jepa_jax.numerics.products import Products

Shape = tuple[int, int, int]
"""[m, k] x [k, n]."""

FAIR_SHARE = 1 / 8
"""Of a GPU's float32 rate: those for data centres multiply float64 at a half or more, all others at 1/32 or less."""

_SQUARE = 2048
"""Side of the products by which that is found out: some milliseconds, of float64 on the slowest some tenths."""


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


def float64_is_fast(platform: Platform) -> bool:
    """Whether the devices of a platform multiply float64 at a fair share of their float32 rate: of a GPU, measured."""
    return _gpu_has_fast_float64() if platform == "gpu" else platform == "cpu"


@functools.cache
def _gpu_has_fast_float64() -> bool:
    try:
        gpu = jax.local_devices(backend="gpu")[0]
    except RuntimeError:  # programs are compiled for one that is not here: for a data centre's, then
        return True
    shape = _SQUARE, _SQUARE, _SQUARE

    def rate(precision: Precision) -> float:
        return statistics.median(product_rates(jax_product(shape, precision), shape, 3))

    def measure() -> bool:
        with jax.default_device(gpu):
            return is_fair(rate("float64"), rate("float32"))

    # In a thread of its own, because a trace, inside which this may be asked, belongs to its thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(measure).result()


def is_fair(float64: float, float32: float) -> bool:
    """Whether a rate of float64 is enough for it to be used."""
    return float64 >= FAIR_SHARE * float32
