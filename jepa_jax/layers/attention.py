"""Multi-head self-attention: o_i = sum_j A_ij v_j with A = softmax(q k^T / sqrt(dh)), head by head.

With P_ij = A_ij (v_j - o_i), a dh-vector for each pair of tokens, the cotangent of the logits of a row with cotangent
c_i at o_i is P_ij . c_i (the softmax's own sum is in it), and

    dq_i = (sum_j k_j P_ij^T) c_i         one dh x dh covariance matrix for each query: no N x N product,
    dk_j = sum_i q_i (P_ij . c_i),
    dv_j = sum_i A_ij c_i.

The scale 1 / sqrt(dh) is taken into the query and its kernel. Only the heads' own part mixes tokens; the two kernels
around it, from outputs and to inputs, are rules of a token, so that a block can join them with its others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.layer import Cost, Layer, Sizes, linear
from jepa_jax.layers.layer_norm import LayerNorm
from jepa_jax.layers.schedule import Heads, Schedule
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.products import Products


class AttentionResiduals(NamedTuple):
    """Queries (scaled), keys and values, [H, N, dh] each; of one head [N, dh]."""

    query: jax.Array
    key: jax.Array
    value: jax.Array


class AttentionKernels(NamedTuple):
    """The kernels of the way back, constants folded in."""

    outward: jax.Array  # [d, d]: from the layer's outputs to the heads'
    inward: jax.Array  # [d, 3d]: from queries, values and keys to the layer's inputs


class Attention(Layer, nnx.Module):
    """Self-attention over all tokens."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs, qkv_bias: bool = True):
        self.width, self.heads = width, heads
        self.qkv = linear(width, 3 * width, rngs, use_bias=qkv_bias)
        self.out = linear(width, width, rngs)

    @property
    def head_width(self) -> int:
        """dh."""
        return self.width // self.heads

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, N, d]."""
        return self._attend(self.qkv(tokens))

    def _attend(self, qkv: jax.Array) -> jax.Array:
        """[B, N, 3d] -> [B, N, d]."""
        qkv = qkv.reshape(*qkv.shape[:2], 3, self.heads, self.head_width)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * self.head_width**-0.5
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits, axis=-1), value)
        return self.out(mixed.reshape(*mixed.shape[:2], self.width))

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, AttentionResiduals]:
        """[N, d] -> [N, d], and `AttentionResiduals`."""
        qkv = self.qkv(tokens)
        query, key, value = qkv.reshape(-1, 3, self.heads, self.head_width).transpose(1, 2, 0, 3)
        return self._attend(qkv[None])[0], AttentionResiduals(query * self.head_width**-0.5, key, value)

    def prepare(self, norm: LayerNorm | None = None, layer_scale: jax.Array | None = None) -> AttentionKernels:
        """The kernels of the way back, with a norm before and a scale of the outputs [d] behind folded in."""
        outward, inward = self.out.kernel[...], self.qkv.kernel[...]
        if layer_scale is not None:
            outward = outward * layer_scale
        query, key, value = jnp.split(inward, 3, axis=1)
        inward = jnp.concatenate([query * self.head_width**-0.5, value, key], axis=1)
        return AttentionKernels(outward, inward if norm is None else norm.fold(inward))

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
        query, key, value = self.pullback_heads(residuals, outputs, products, schedule)

        def inputs(*parts: Heads) -> jax.Array:
            return jnp.swapaxes(self.pullback_inputs(kernels, parts, products, schedule), -1, -2)

        active, total = cotangent.shape[0], residuals.key.shape[1]
        if active == total:
            return schedule.over_tokens(inputs, query, value, keys=key)
        asked = schedule.over_tokens(inputs, value, keys=key)
        return asked.at[:active].add(schedule.over_tokens(inputs, query))

    def pullback_output(
        self, kernels: AttentionKernels, cotangent: jax.Array, products: Products, schedule: Schedule
    ) -> Heads:
        """Through the output projection of any number of tokens: [..., R, d] to [..., d, R], cut into heads."""
        return schedule.split(products("de,...re->...dr", kernels.outward, cotangent), self.heads)

    def pullback_heads(
        self, residuals: AttentionResiduals, outputs: Heads, products: Products, schedule: Schedule
    ) -> tuple[Heads, ...]:
        """Through softmax(q k^T) v of all heads: cotangents of A outputs to those of A queries, N keys and values."""
        rule = pullback_head
        if products.kernels == "auto":
            rule = KERNELS.get(products.platform, pullback_head)

        def of_head(head: AttentionResiduals, output: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            return rule(products, output, head._replace(query=head.query[: output.shape[0]]))

        return schedule.over_heads(of_head, residuals, outputs)

    def pullback_inputs(
        self, kernels: AttentionKernels, parts: tuple[Heads, ...], products: Products, schedule: Schedule
    ) -> jax.Array:
        """Through the input projection of any number of tokens, turned: [..., d, R].

        Args:
            kernels: see `prepare`.
            parts: cotangents of query, value and key; of query alone; or of value and key.
            products: see `Layer.pullback`, as for the next.
            schedule: what cut the heads.
        """
        used = {1: slice(None, self.width), 2: slice(self.width, None), 3: slice(None)}[len(parts)]
        return products("de,...er->...dr", kernels.inward[:, used], schedule.join(parts))

    def cost(self, sizes: Sizes) -> Cost:
        """Over the active tokens as queries, and all as keys."""
        width, tokens, active, rows = self.width, sizes.tokens, sizes.active, sizes.rows
        pairs = active * tokens
        forward = 4 * tokens * width * width + 2 * tokens * tokens * width
        covariance = pairs * width * self.head_width + active * rows * width * self.head_width
        of_query = covariance if tokens > self.head_width else pairs * rows * width
        heads_at_once = sizes.schedule.at_once(self.heads)
        return Cost(
            forward=forward,
            pullback=2 * rows * (active + tokens) * width * width  # the kernels around the heads
            + 2 * pairs * width  # the attention weights and outputs again
            + 3 * rows * pairs * width  # the logits' cotangent, dk and dv
            + of_query,
            by_vjp=rows * (4 * tokens * width * width + 4 * tokens * tokens * width),
            kernels=4 * width * width * sizes.itemsize,
            residuals=3 * tokens * width * sizes.itemsize,
            workspace=int(rows * (5 * tokens * width + 2 * heads_at_once * pairs)) * sizes.itemsize,
        )


def pullback_head(
    products: Products, cotangent: jax.Array, residuals: AttentionResiduals
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pull rows back through one head.

    Args:
        products: takes the products.
        cotangent: of the head's outputs, [Q, dh, R]; Q queries may be fewer than N keys.
        residuals: query [Q, dh], key and value [N, dh].

    Returns:
        Cotangents of query [Q, dh, R], key **[dh, N, R]** and value [N, dh, R]; see `Schedule.over_heads`.
    """
    query, key, value = residuals
    weights = jax.nn.softmax(query @ key.T, axis=-1)
    output = weights @ value
    spread = weights[:, :, None] * (value[None] - output[:, None])  # P
    of_logits = products("ije,ier->ijr", spread, cotangent)
    if key.shape[0] > key.shape[1]:
        of_query = products("ife,ier->ifr", products("jf,ije->ife", key, spread), cotangent)
    else:
        of_query = products("jf,ijr->ifr", key, of_logits)
    of_key = products("if,ijr->fjr", query, of_logits)
    of_value = products("ij,ier->jer", weights, cotangent)
    return of_query, of_key, of_value


HeadPullback = Callable[[Products, jax.Array, AttentionResiduals], tuple[jax.Array, jax.Array, jax.Array]]
"""What `pullback_head` is."""

KERNELS: dict[Platform, HeadPullback] = {}
"""What takes the place of `pullback_head` on a platform: a program written for it, in a file of its own."""
