"""How much the matrix units of a GPU take off all singular values of a ViT: they cut off their sums, and do not round.

Each addition makes a sum smaller by some part of its last digit (`jepa_jax.numerics.products_gpu`): so a product takes
off in proportion to its terms, over the terms that a unit adds in one step, and an encoder in proportion to its depth.
"""

from __future__ import annotations

from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import Precision
from jepa_jax.numerics.products_gpu import TERMS

_AT_ONCE: dict[Precision, int] = {"bfloat16": 16, "float16": 16, "tensorfloat32": 8, "bfloat16_3x": 16}
"""Terms that a tensor core of an H100 adds to a sum in one step."""

_A_STEP = 3.6e-8
"""Relative, for each block and each step of a sum over a token's numbers: of a ViT-S on an H100, whose values were
2.1e-5 too small at TF32, and 3.1e-5 with three terms of 16 bits for each number."""


def cut_off(platform: Platform, precision: Precision, vit: ViTSpec) -> float:
    """Relative amount by which all singular values of a ViT are too small.

    Args:
        platform: that computes it.
        precision: of the products.
        vit: its architecture.
    """
    if platform != "gpu" or precision not in _AT_ONCE:
        return 0.0
    terms = min(vit.width, TERMS) if precision == "bfloat16_3x" else vit.width
    return _A_STEP * vit.depth * terms / _AT_ONCE[precision]
