"""Rotary position embeddings: self-attention whose queries and keys are turned, and the axial one of DINOv3.

A patch at (y, x), its centre in [-1, 1] along each side of the image, turns pairs of a head's dh values by angles

    2 pi y / p_k  and  2 pi x / p_k,    p_k = base^(4k / dh),    k = 0 .. dh/4 - 1:

the first half of the pairs by y, the other by x; value i of the first half of a head makes a pair with value i of the
second half. Class token and registers are not turned. Nothing is stored for a grid: any image size is as good.

With R_i the rotation of token i, attention is that of q'_i = R_i q_i and k'_j = R_j k_j. So the heads' own part, and
the kernels written for it, see turned queries and keys; its cotangents of these are turned back, dq_i = R_i^T dq'_i,
before they go through the input projection. Values are as they were.

An embedding may pair other values of a head than those of its halves. No product of a query and a key changes if both
have their values in another order, so such a layer takes them in the `order` that brings pairs to the halves.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jepa_jax.layers.attention import Attention
from jepa_jax.layers.layer import Cost, Sizes
from jepa_jax.layers.rotation import Rotation, rotate

Periods = Literal["exact", "bfloat16"]
"""Whether periods are as the formula has them, or rounded to bfloat16, as some files store them."""

Grid = tuple[int, ...]
"""How many patches there are along each axis of an input."""

COPIES = 3
"""Arrays of the size of the layer's cotangents that turning back may take where all tokens are turned at once."""


class Rotary(Protocol):
    """By what queries and keys are turned."""

    def angles(self, grid: Grid, head_width: int) -> np.ndarray:
        """Of all tokens and of a head's values, pairs apart, [N, dh], float64."""
        ...

    def order(self, head_width: int) -> np.ndarray | None:
        """The numbers of a head's values, [dh], in the order that has pairs apart; None where they are already."""
        ...


@dataclass(frozen=True)
class AxialRotary:
    """What the angles are made of.

    Attributes:
        prefix: tokens that stand before the patches, and are not turned.
        base: of the periods.
        periods: how these are rounded.
    """

    prefix: int
    base: float
    periods: Periods = "exact"

    def angles(self, grid: Grid, head_width: int) -> np.ndarray:
        """See `Rotary`."""
        centres = [2.0 * (np.arange(count) + 0.5) / count - 1.0 for count in grid]
        of_patches = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2)
        turned = 2.0 * np.pi * of_patches[:, :, None] / rotary_periods(head_width, self.base, self.periods)
        of_pairs = np.pad(turned.reshape(len(of_patches), -1), ((self.prefix, 0), (0, 0)))
        return np.concatenate([of_pairs, of_pairs], axis=1)

    def order(self, head_width: int) -> None:
        """See `Rotary`."""
        del head_width


def rotary_periods(head_width: int, base: float, rounding: Periods = "exact") -> np.ndarray:
    """p_k, [dh / 4], float64: they go from 1 to nearly the base."""
    periods = base ** (4.0 * np.arange(head_width // 4) / head_width)
    return periods.astype(jnp.bfloat16).astype(np.float64) if rounding == "bfloat16" else periods


class RotaryAttention(Attention):
    """Self-attention with turned queries and keys, over the tokens of a grid of patches (see `on`)."""

    def __init__(
        self,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
        rotary: Rotary,
        *,
        qkv_bias: bool = True,
        key_bias: bool = True,
    ):
        super().__init__(width, heads, rngs, qkv_bias=qkv_bias, key_bias=key_bias)
        self.rotary = rotary
        self.grid: Grid | None = None

    def on(self, grid: Grid) -> RotaryAttention:
        """The same layer for inputs of so many patches along each axis."""
        layer = nnx.merge(*nnx.split(self))
        layer.grid = grid
        return layer

    def rotation(self, dtype: jnp.dtype) -> Rotation:
        """See `Attention.rotation`."""
        if self.grid is None:
            raise ValueError("a rotary layer works on a grid of patches; take `on(grid)` of it.")
        angles = self.rotary.angles(self.grid, self.head_width)
        return Rotation(jnp.asarray(np.cos(angles), dtype), jnp.asarray(np.sin(angles), dtype))

    def query_key_value(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[B, N, d] -> turned queries, turned keys, and values, [B, N, H, dh] each."""
        query, key, value = super().query_key_value(tokens)
        order = self.rotary.order(self.head_width)
        if order is not None:
            query, key = query[..., order], key[..., order]
        of_heads = Rotation(*(each[:, None] for each in self.rotation(query.dtype)))
        return rotate(query, of_heads), rotate(key, of_heads), value

    def query_key_value_kernels(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """See `Attention`: those of query and key by the order of their values."""
        query, key, value = super().query_key_value_kernels()
        order = self.rotary.order(self.head_width)
        if order is None:
            return query, key, value
        query, key = (each.reshape(-1, self.heads, self.head_width)[..., order] for each in (query, key))
        return query.reshape(value.shape), key.reshape(value.shape), value

    def cost(self, sizes: Sizes) -> Cost:
        """As without rotation, which has no matrix products, and copies of cotangents."""
        cost = super().cost(sizes)
        if sizes.schedule.loops:
            return cost
        copies = COPIES * sizes.rows * sizes.tokens * self.width * sizes.stored
        return dataclasses.replace(cost, workspace=cost.workspace + copies)
