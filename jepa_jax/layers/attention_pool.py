"""SigLIP's head: one learned query asks all tokens, and a LayerNorm and an MLP with a residual connection follow.

    a = sum over heads h of (sum_j A_hj v_hj) Wo_h + bo,  A_h = softmax_j(q_h . k_hj),     y = a + mlp(norm(a)).

The query belongs to the parameters, so that with o_h = sum_j A_hj v_hj and a row's cotangent c_h at o_h, the way back
to a token x_j takes no product of the size of a kernel for each token and row:

    dx_j = sum_h A_hj (c_h Wv_h^T) + s_hj (q_h Wk_h^T),    s_hj = A_hj (v_hj - o_h) . c_h.

The first brackets are made once for all tokens, the second ones once for all images: N R (2 H + 1) d multiplications
where layer by layer there are 2 N R d^2. That is so little that the pullback is exact at every level of precision.

**Null directions: none.** The output ends in no LayerNorm. The tokens that enter have one in common (their LayerNorm's
1 / g), and o_h is a linear map to dh values of a mean over them by the head's own weights. A direction is lost only if
each head's image of it is that one direction in d dimensions; with two heads or more, of dh < d values each, none is.
With one head, or of a single token, it would be: the first is refused in the spec, the second where images come in.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.layer import INITIAL, Cost, Layer, Sizes, linear
from jepa_jax.layers.layer_norm import LayerNorm, NormResiduals
from jepa_jax.layers.mlp import MLP, MLPKernels
from jepa_jax.layers.schedule import Schedule
from jepa_jax.numerics.products import Products


class AttentionPoolResiduals(NamedTuple):
    """What is kept of the forward pass.

    Attributes:
        weights: A, [N, H].
        spread: A_hj (v_hj - o_h), [N, H, dh].
        norm: of the one token a.
        mlp: the activation's derivatives, [1, h].
    """

    weights: jax.Array
    spread: jax.Array
    norm: NormResiduals
    mlp: jax.Array


class AttentionPoolKernels(NamedTuple):
    """The kernels of the way back.

    Attributes:
        outward: Wo^T, [d, H, dh].
        value: Wv, [d, H, dh].
        asked: q_h Wk_h^T, of scaled queries, [H, d].
        mlp: with the norm folded in.
    """

    outward: jax.Array
    value: jax.Array
    asked: jax.Array
    mlp: MLPKernels


class AttentionPool(Layer, nnx.Module):
    """From N tokens to one, by the attention of a learned query (the probe)."""

    def __init__(self, width: int, heads: int, norm: LayerNorm, mlp: MLP, rngs: nnx.Rngs):
        self.width, self.heads = width, heads
        self.probe = nnx.Param(INITIAL(rngs.params(), (width,)))
        self.qkv = linear(width, 3 * width, rngs)
        self.out = linear(width, width, rngs)
        self.norm = norm
        self.mlp = mlp

    def active(self, tokens: int) -> int:
        """How many leading tokens of N have a cotangent: all."""
        return tokens

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, 1, d]."""
        weights, value = self._ask(tokens)
        attended = self.out(jnp.einsum("bnh,bnhe->bhe", weights, value).reshape(-1, 1, self.width))
        return attended + self.mlp(self.norm(attended))

    def _ask(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Attention weights [B, N, H] and values [B, N, H, dh]."""
        assert self.qkv.bias is not None
        kernel, bias = self.qkv.kernel[...], self.qkv.bias[...]
        asking = tokens @ kernel[:, self.width :] + bias[self.width :]
        key, value = (part.reshape(*tokens.shape[:2], self.heads, -1) for part in jnp.split(asking, 2, axis=-1))
        return jax.nn.softmax(jnp.einsum("bnhe,he->bnh", key, self._query()), axis=1), value

    def _query(self) -> jax.Array:
        """The probe's queries, scaled, [H, dh]."""
        assert self.qkv.bias is not None
        kernel, bias = self.qkv.kernel[:, : self.width], self.qkv.bias[: self.width]
        query = (self.probe[...] @ kernel + bias).reshape(self.heads, -1)
        return query * query.shape[-1] ** -0.5

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, AttentionPoolResiduals]:
        """[N, d] -> [1, d], and `AttentionPoolResiduals`."""
        weights, value = (part[0] for part in self._ask(tokens[None]))
        mixed = jnp.einsum("nh,nhe->he", weights, value)
        attended = self.out(mixed.reshape(1, self.width))
        normed, norm = self.norm.linearize(attended)
        added, mlp = self.mlp.linearize(normed)
        return attended + added, AttentionPoolResiduals(weights, weights[..., None] * (value - mixed), norm, mlp)

    def prepare(self, products: Products) -> AttentionPoolKernels:
        """See `AttentionPoolKernels`."""
        _, key, value = jnp.split(self.qkv.kernel[...], 3, axis=1)
        per_head = (self.width, self.heads, -1)
        return AttentionPoolKernels(
            self.out.kernel[...].T.reshape(per_head),
            value.reshape(per_head),
            jnp.einsum("dhe,he->hd", key.reshape(per_head), self._query()),
            self.mlp.prepare(_exact(products), self.norm),
        )

    def pullback(
        self,
        kernels: AttentionPoolKernels,
        residuals: AttentionPoolResiduals,
        cotangent: jax.Array,
        products: Products,
        schedule: Schedule,
    ) -> jax.Array:
        """See `Layer.pullback`: [1, R, d] -> [N, R, d]."""
        exact = _exact(products)
        row = self.mlp.pullback_tokens(kernels.mlp, residuals.mlp, cotangent, exact, residuals.norm, onto=cotangent)
        of_heads = exact("rd,dhe->rhe", row[0], kernels.outward)
        of_values = exact("rhe,dhe->rhd", of_heads, kernels.value)

        def rule(weights: jax.Array, spread: jax.Array) -> jax.Array:
            of_logits = exact("...he,rhe->...rh", spread, of_heads)
            return exact("...h,rhd->...rd", weights, of_values) + exact("...rh,hd->...rd", of_logits, kernels.asked)

        return schedule.over_tokens(rule, residuals.weights, residuals.spread)

    def cost(self, sizes: Sizes) -> Cost:
        """Of all tokens as keys, and of one token behind them."""
        width, tokens, rows, heads = self.width, sizes.tokens, sizes.rows, self.heads
        exact = _exact(sizes.products)
        one = dataclasses.replace(sizes, tokens=1, active=1, products=exact)
        behind = self.mlp.cost(one) + Cost(pullback=rows * width)
        kernels = 2 * width * width + heads * width
        head = Cost(
            forward=2 * tokens * width * (width + 1) + 2 * width * width,
            pullback=rows * (2 * width * width + tokens * width * (2 * heads + 1)),
            by_vjp=rows * (2 * tokens * width * (width + 1) + width * width),
            kernels=kernels * sizes.itemsize,
            residuals=(tokens * (width + heads) + width + 1) * sizes.itemsize,
            # The result and one addend to it, and what is made once of each row.
            workspace=rows * width * (tokens + sizes.schedule.at_once(tokens) + heads + 2) * sizes.itemsize,
        )
        return head + behind


def _exact(products: Products) -> Products:
    """The same products in the forward pass's own precision."""
    if products.precision == "float64":
        return products
    return dataclasses.replace(products, precision="float32", kernels="off", khatri_rao=False)
