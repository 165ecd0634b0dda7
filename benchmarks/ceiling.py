"""The rate of plain matrix products: what no Jacobian can exceed here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contest import encoder_spec
from benchmarks.environment import version
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.numerics.precision import Precision
from jepa_jax.numerics.products import Products

Shape = tuple[int, int, int]
"""[m, k] x [k, n]."""


@dataclass(frozen=True)
class Ceiling:
    """Rates at the sizes that matter: a large square product, and all rows of all tokens through one kernel.

    Attributes:
        models: whose widths and row counts.
        image_size: decides the number of tokens.
        square: side of the square product.
        precisions: in JAX. PyTorch is measured in float32.
        repeats: of every product; the median counts.
    """

    models: tuple[str, ...] = ("dinov2-small", "dinov2-base")
    image_size: int = 112
    square: int = 2048
    precisions: tuple[Precision, ...] = ("float32", "float64")
    repeats: int = 7

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Measure every product, one after the other."""
        shapes = {f"square {self.square}": (self.square, self.square, self.square)}
        for model in self.models:
            vit = encoder_spec(model).vit
            tokens = (self.image_size // vit.patch_size) ** 2 + vit.prefix_tokens
            shapes[f"{model} at {self.image_size} px"] = (tokens * vit.embedding_size, vit.width, vit.width)
        rows: list[dict[str, Any]] = []
        for name, shape in shapes.items():
            products = {("jax", precision): jax_product(shape, precision) for precision in self.precisions}
            if version("torch"):
                products["torch", "float32"] = torch_product(shape)
            for (framework, precision), product in products.items():
                rates = product_rates(product, shape, self.repeats)
                rows.append(
                    {
                        "product": name,
                        "shape": shape,
                        "framework": framework,
                        "precision": precision,
                        "flops_per_second_median": statistics.median(rates),
                        "flops_per_second_min": min(rates),
                        "flops_per_second_max": max(rates),
                    }
                )
                record({"products": rows})
        return {"products": rows}


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


def torch_product(shape: Shape) -> Callable[[], None]:
    """A float32 product on PyTorch's best device."""
    import torch

    m, k, n = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.from_numpy(np.ones(size, np.float32)).to(device) for size in ((m, k), (k, n)))

    def product() -> None:
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    return product
