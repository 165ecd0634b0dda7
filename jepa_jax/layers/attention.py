"""Multi-head self-attention: o_i = sum_j A_ij v_j with A = softmax(q k^T / sqrt(dh)), head by head.

The scale 1 / sqrt(dh) is taken into the query and its kernel. Only the heads' own part mixes tokens; the two kernels
around it, from outputs and to inputs, are rules of a token, so that a block can join them with its others. How the
three go together is said in `jepa_jax.layers.heads`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.heads import AllHeads, AttentionKernels, AttentionResiduals, HeadByHead, Heads, kernel_for
from jepa_jax.layers.layer import Cost, Layer, Sizes, first, kernel_pair, linear
from jepa_jax.layers.layer_norm import LayerNorm, NormResiduals
from jepa_jax.layers.query_blocks import block_size, mixed_by_queries
from jepa_jax.layers.rotation import Rotation
from jepa_jax.layers.schedule import Schedule
from jepa_jax.numerics.products import Products

MANY = 1024
"""Tokens from which on the vectors of all pairs are counted, [tokens, tokens, dh]: with few rows they are the most
that there is, and of fewer tokens they are a trifle beside the rest."""


class Attention(Layer, nnx.Module):
    """Self-attention over all tokens."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs, qkv_bias: bool = True, key_bias: bool = True):
        self.width, self.heads = width, heads
        self.qkv = linear(width, 3 * width, rngs, use_bias=qkv_bias and key_bias)
        self.biased_apart = qkv_bias and not key_bias
        if self.biased_apart:
            self.query_value_bias = nnx.Param(jnp.zeros(2 * width))
        self.out = linear(width, width, rngs)

    @property
    def head_width(self) -> int:
        """dh."""
        return self.width // self.heads

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, N, d]."""
        return self._attend(*self.query_key_value(tokens))

    def query_key_value(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[B, N, d] -> [B, N, H, dh] each."""
        qkv = self.qkv(tokens)
        if self.biased_apart:
            of_query, of_value = jnp.split(self.query_value_bias[...], 2)
            qkv = qkv + jnp.concatenate([of_query, jnp.zeros_like(of_query), of_value])
        qkv = qkv.reshape(*qkv.shape[:2], 3, self.heads, self.head_width)
        return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]

    def query_key_value_kernels(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Of query, key and value, [d, H dh] each, as their heads are gone through."""
        query, key, value = jnp.split(self.qkv.kernel[...], 3, axis=1)
        return query, key, value

    def rotation(self, dtype: jnp.dtype) -> Rotation | None:
        """By what queries and keys are turned after their projection; here by nothing."""
        del dtype
        return None

    def _attend(self, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        """[B, N, H, dh] each -> [B, N, d]."""

        def mix(query: jax.Array) -> jax.Array:
            logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * self.head_width**-0.5
            return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits, axis=-1), value)

        mixed = mixed_by_queries(mix, query, key.shape[1])
        return self.out(mixed.reshape(*mixed.shape[:2], self.width))

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, AttentionResiduals]:
        """[N, d] -> [N, d], and `AttentionResiduals`."""
        parts = self.query_key_value(tokens[None])
        query, key, value = (part[0].transpose(1, 0, 2) for part in parts)
        return self._attend(*parts)[0], AttentionResiduals(query * self.head_width**-0.5, key, value)

    def prepare(
        self, products: Products, norm: LayerNorm | None = None, layer_scale: jax.Array | None = None
    ) -> AttentionKernels:
        """The kernels of the way back, with a norm before and a scale of the outputs [d] behind folded in."""
        outward = self.out.kernel[...]
        if layer_scale is not None:
            outward = outward * layer_scale
        query, key, value = self.query_key_value_kernels()
        inward = jnp.concatenate([query * self.head_width**-0.5, value, key], axis=1)
        return AttentionKernels(*kernel_pair(products, outward, inward if norm is None else norm.fold(inward)))

    def pullback(
        self,
        kernels: AttentionKernels,
        residuals: AttentionResiduals,
        cotangent: jax.Array,
        products: Products,
        schedule: Schedule,
    ) -> jax.Array:
        """See `Layer.pullback`: [A, R, d] -> [N, R, d]."""
        outputs = schedule.over_tokens(
            lambda token: self.pullback_output(kernels, token, products, schedule), cotangent
        )
        *parts, last = self.pullback_heads(residuals, outputs, products, schedule)

        def inputs(rotation: Rotation | None, *parts: Any) -> jax.Array:
            return self.pullback_inputs(kernels, parts, None, rotation, products, schedule)

        active, total = cotangent.shape[0], residuals.key.shape[1]
        rotation = self.rotation(residuals.key.dtype)
        if active == total:
            return schedule.over_tokens(inputs, rotation, *parts, keys=last)
        query, value = parts
        asked = schedule.over_tokens(inputs, rotation, value, keys=last)
        return asked.at[:active].add(schedule.over_tokens(inputs, first(rotation, active), query))

    def pullback_output(
        self, kernels: AttentionKernels, cotangent: jax.Array, products: Products, schedule: Schedule
    ) -> Any:
        """See `Heads.from_outputs`."""
        return _heads(schedule).from_outputs(kernels.outward, cotangent, self.heads, products)

    def pullback_heads(
        self, residuals: AttentionResiduals, outputs: Any, products: Products, schedule: Schedule
    ) -> tuple[Any, ...]:
        """See `Heads.pullback`."""
        return _heads(schedule).pullback(residuals, outputs, products)

    def pullback_inputs(
        self,
        kernels: AttentionKernels,
        parts: tuple[Any, ...],
        norm: NormResiduals | None,
        rotation: Rotation | None,
        products: Products,
        schedule: Schedule,
        onto: jax.Array | None = None,
    ) -> jax.Array:
        """See `Heads.to_inputs`."""
        return _heads(schedule).to_inputs(kernels, parts, norm, rotation, products, onto)

    def cost(self, sizes: Sizes) -> Cost:
        """Over the active tokens as queries, and all as keys."""
        width, tokens, active, rows = self.width, sizes.tokens, sizes.active, sizes.rows
        pairs = active * tokens
        forward = 4 * tokens * width * width + 2 * tokens * tokens * width
        covariance = pairs * width * self.head_width + active * rows * width * self.head_width
        of_query = covariance if tokens > self.head_width else pairs * rows * width
        asking = block_size(active, tokens)
        at_once = asking * tokens * sizes.schedule.at_once(self.heads)  # pairs, of the heads of one step
        cotangents, logits = rows * tokens * width, rows * at_once
        spread = self.head_width * at_once if tokens >= MANY else 0
        if sizes.schedule.loops:
            workspace = 5 * cotangents + logits + max(logits, spread)
        else:
            kernel = kernel_for(sizes.products, active, (self.heads, tokens, self.head_width))
            workspace = 4 * cotangents + logits + (spread if rows < 2 * self.head_width else 0)
            if kernel is not None:
                # Where one block is not enough, the weights of all heads are no trifle: as they are, and turned.
                workspace = kernel.ALIVE * cotangents + (2 * self.heads * pairs if asking < active else 0)
        return Cost(
            forward=forward,
            pullback=2 * rows * (active + tokens) * width * width  # the kernels around the heads
            + 2 * pairs * width  # the attention weights and outputs again
            + 3 * rows * pairs * width  # the logits' cotangent, dk and dv
            + of_query,
            by_vjp=rows * (4 * tokens * width * width + 4 * tokens * tokens * width),
            kernels=4 * width * width * sizes.stored,
            residuals=3 * tokens * width * sizes.itemsize,
            workspace=int(workspace) * sizes.stored,
        )


def _heads(schedule: Schedule) -> Heads:
    return HeadByHead() if schedule.loops else AllHeads()
