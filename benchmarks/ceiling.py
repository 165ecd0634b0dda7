"""The rate of plain matrix products: what no Jacobian can exceed here."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.contest import encoder_spec
from jepa_jax.numerics.precision import Precision
from jepa_jax.numerics.product_rates import Shape, jax_product, product_rates
from jepa_jax.provenance import version


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
