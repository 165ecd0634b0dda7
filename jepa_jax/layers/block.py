"""The pre-norm transformer block: x + s1 * attention(norm1(x)), then x + s2 * mlp(norm2(x))."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.attention import Attention
from jepa_jax.layers.heads import AttentionKernels, AttentionResiduals
from jepa_jax.layers.layer import Cost, Layer, Sizes, first
from jepa_jax.layers.layer_norm import LayerNorm, NormResiduals
from jepa_jax.layers.mlp import MLP, MLPKernels, SwiGLU
from jepa_jax.layers.rotary import RotaryAttention
from jepa_jax.layers.rotation import Rotation
from jepa_jax.layers.schedule import Schedule
from jepa_jax.numerics.products import Products


class BlockResiduals(NamedTuple):
    """Of the four layers, in their order."""

    norm1: NormResiduals
    attention: AttentionResiduals
    norm2: NormResiduals
    mlp: jax.Array


class BlockKernels(NamedTuple):
    """Of attention and MLP, with the norms before them and the LayerScales behind them folded in."""

    attention: AttentionKernels
    mlp: MLPKernels


class Block(Layer, nnx.Module):
    """Pre-norm transformer block; LayerScale where the family has it."""

    def __init__(
        self,
        norms: tuple[LayerNorm, LayerNorm],
        attention: Attention,
        mlp: MLP | SwiGLU,
        layer_scale: bool,
    ):
        self.norm1, self.norm2 = norms
        self.attention = attention
        self.mlp = mlp
        self.scaled = layer_scale
        if layer_scale:
            self.layer_scale1 = nnx.Param(jnp.ones(attention.width))
            self.layer_scale2 = nnx.Param(jnp.ones(attention.width))

    def on(self, grid: tuple[int, ...]) -> Block:
        """The same block for inputs of so many patches along each axis: where positions are in its attention."""
        if not isinstance(self.attention, RotaryAttention):
            return self
        block = nnx.merge(*nnx.split(self))
        block.attention = self.attention.on(grid)
        return block

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, N, d]."""
        attended = self.attention(self.norm1(tokens))
        tokens = tokens + (attended * self.layer_scale1 if self.scaled else attended)
        mixed = self.mlp(self.norm2(tokens))
        return tokens + (mixed * self.layer_scale2 if self.scaled else mixed)

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, BlockResiduals]:
        """[N, d] -> [N, d], and `BlockResiduals`."""
        normed, norm1 = self.norm1.linearize(tokens)
        attended, attention = self.attention.linearize(normed)
        tokens = tokens + (attended * self.layer_scale1 if self.scaled else attended)
        normed, norm2 = self.norm2.linearize(tokens)
        mixed, mlp = self.mlp.linearize(normed)
        tokens = tokens + (mixed * self.layer_scale2 if self.scaled else mixed)
        return tokens, BlockResiduals(norm1, attention, norm2, mlp)

    def prepare(self, products: Products) -> BlockKernels:
        """See `BlockKernels`."""
        scales = (self.layer_scale1[...], self.layer_scale2[...]) if self.scaled else (None, None)
        return BlockKernels(
            self.attention.prepare(products, self.norm1, scales[0]),
            self.mlp.prepare(products, self.norm2, scales[1]),
        )

    def pullback(
        self,
        kernels: BlockKernels,
        residuals: BlockResiduals,
        cotangent: jax.Array,
        products: Products,
        schedule: Schedule,
    ) -> jax.Array:
        """See `Layer.pullback`: [A, R, d] -> [N, R, d].

        Nothing is computed for tokens without a cotangent before attention spreads it to them. Between the two
        mixtures of tokens, all that happens to a token happens in one step.
        """
        attention, mlp = self.attention, self.mlp
        active, total = cotangent.shape[0], residuals.norm1.inverse_std.shape[0]
        of_active, for_active = products, kernels
        if active == 1 < total:
            of_active = products.of_one_token()
            for_active = jax.tree.map(lambda leaf: leaf.astype(residuals.mlp.dtype), kernels)

        def through_mlp(token: jax.Array, norm: NormResiduals, hidden: jax.Array) -> tuple[jax.Array, Any]:
            token = mlp.pullback_tokens(for_active.mlp, hidden, token, of_active, norm, onto=token)
            return token, attention.pullback_output(for_active.attention, token, of_active, schedule)

        def through_inputs(
            kernels: BlockKernels,
            products: Products,
            onto: jax.Array | None,
            norm: NormResiduals,
            rotation: Rotation | None,
            *parts: Any,
        ) -> jax.Array:
            return attention.pullback_inputs(kernels.attention, parts, norm, rotation, products, schedule, onto)

        cotangent, outputs = schedule.over_tokens(
            through_mlp, cotangent, first(residuals.norm2, active), first(residuals.mlp, active)
        )
        *parts, last = attention.pullback_heads(residuals.attention, outputs, of_active, schedule)
        rotation = attention.rotation(residuals.attention.key.dtype)
        if active == total:
            through = functools.partial(through_inputs, kernels, products)
            return schedule.over_tokens(through, cotangent, residuals.norm1, rotation, *parts, keys=last)
        query, value = parts
        value, last = jax.tree.map(products.stored, (value, last))
        of_queries = functools.partial(through_inputs, for_active, of_active, None)
        of_keys = functools.partial(through_inputs, kernels, products, None)
        asking = schedule.over_tokens(of_queries, first(residuals.norm1, active), first(rotation, active), query)
        asked = schedule.over_tokens(of_keys, residuals.norm1, rotation, value, keys=last)
        return products.stored(asked.at[:active].add(asking + cotangent.astype(asking.dtype)))

    def cost(self, sizes: Sizes) -> Cost:
        """Of its four layers; the norms' gains are folded, and cost their rank-one updates alone."""
        width, values = self.attention.width, sizes.tokens * (self.attention.width + 1)
        updates = (sizes.active + sizes.tokens + (sizes.active if sizes.active < sizes.tokens else 0)) * sizes.rows
        norms = Cost(pullback=updates * width, residuals=2 * values * sizes.itemsize)
        return norms + self.attention.cost(sizes) + self.mlp.cost(sizes)
