"""LayerNorm: y = g * u + b with u = (x - mean(x)) / std(x), over the last axis.

With P = 1 - 1 1^T / d (subtract the mean), the pullback is

    c  ->  (v - u (u . v) / d) / std,    v = P (g * c):

the gain and the mean are the same for every token, so that a linear layer behind the norm takes them into its own
kernel, once (`fold`); what is left is a rank-one update.

Its output obeys two identities whatever the input: u sums to zero, and u has a fixed length up to epsilon. Hence the
null directions 1 / g, exactly, and (y - b) / g^2, up to epsilon / variance.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.layer import Cost, NullDirections, Sizes, TokenLayer
from jepa_jax.numerics.products import Products


class NormResiduals(NamedTuple):
    """Normalised tokens u [..., d], and 1 / std [...]."""

    normalized: jax.Array
    inverse_std: jax.Array


class LayerNorm(TokenLayer, nnx.Module):
    """LayerNorm over the last axis, in the input's precision.

    flax's own refuses float64 where promotion is strict, and its default variance E[x^2] - E[x]^2
    cancels in float32: the Jacobian's small singular values show it.
    """

    def __init__(self, width: int, epsilon: float):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[..., d] -> [..., d]."""
        return self._normalize(tokens).normalized * self.scale + self.bias

    def _normalize(self, tokens: jax.Array) -> NormResiduals:
        deviation = tokens - jnp.mean(tokens, axis=-1, keepdims=True)
        inverse_std = jax.lax.rsqrt(jnp.mean(deviation**2, axis=-1) + self.epsilon)
        return NormResiduals(deviation * inverse_std[..., None], inverse_std)

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, NormResiduals]:
        """[..., d] -> [..., d], and `NormResiduals`."""
        residuals = self._normalize(tokens)
        return residuals.normalized * self.scale + self.bias, residuals

    def prepare(self) -> jax.Array:
        """The gain, [d]."""
        return self.scale[...]

    def fold(self, kernel: jax.Array) -> jax.Array:
        """The gain and the mean, taken into the kernel [d, h] of the layer behind."""
        gained = kernel * self.scale[:, None]
        return gained - jnp.mean(gained, axis=0, keepdims=True)

    def pullback_tokens(
        self, kernels: jax.Array, residuals: NormResiduals, cotangent: jax.Array, products: Products
    ) -> jax.Array:
        """[..., R, d] -> [..., R, d]."""
        del products  # no row meets another here
        gained = cotangent * kernels
        return pullback_folded(residuals, gained - jnp.mean(gained, axis=-1, keepdims=True))

    def null_directions(self, before: NullDirections, output: jax.Array) -> NullDirections:
        """1 / g of all tokens, and (y - b) / g^2 of each."""
        del before  # nothing passes the division by std
        gain, bias = self.scale.astype(output.dtype), self.bias.astype(output.dtype)
        shared, own = 1.0 / gain, (output - bias) / gain**2
        return NullDirections(_unit(shared)[:, None], _unit(own)[..., None])

    def cost(self, sizes: Sizes) -> Cost:
        """Of a norm whose gain is not folded, over the active tokens."""
        width, values = self.scale.shape[0], sizes.tokens * (self.scale.shape[0] + 1)
        return Cost(
            pullback=sizes.active * sizes.rows * width,
            residuals=values * sizes.itemsize,
            kernels=width * sizes.itemsize,
        )


def pullback_folded(residuals: NormResiduals, cotangent: jax.Array) -> jax.Array:
    """The part that differs from token to token, of v [..., R, d] with zero mean: (v - u (u . v) / d) / std."""
    normalized, inverse_std = residuals
    along = jnp.einsum("...rd,...d->...r", cotangent, normalized) / normalized.shape[-1]
    return (cotangent - along[..., None] * normalized[..., None, :]) * inverse_std[..., None, None]


def pullback_folded_turned(residuals: NormResiduals, cotangent: jax.Array) -> jax.Array:
    """`pullback_folded` with rows last, [..., d, R]."""
    normalized, inverse_std = residuals
    along = jnp.einsum("...dr,...d->...r", cotangent, normalized) / normalized.shape[-1]
    return (cotangent - normalized[..., :, None] * along[..., None, :]) * inverse_std[..., None, None]


def _unit(directions: jax.Array) -> jax.Array:
    return directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
