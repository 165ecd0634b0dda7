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

from jepa_jax.layers import layer_norm_gpu
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

    def prepare(self, products: Products) -> jax.Array:
        """The gain, [d]."""
        del products
        return self.scale[...]

    def fold(self, kernel: jax.Array) -> jax.Array:
        """The gain and the mean, taken into the kernel [d, h] of the layer behind."""
        gained = kernel * self.scale[:, None]
        return gained - jnp.mean(gained, axis=0, keepdims=True)

    def pullback_tokens(
        self, kernels: jax.Array, residuals: NormResiduals, cotangent: jax.Array, products: Products
    ) -> jax.Array:
        """[..., R, d] -> [..., R, d].

        Here cotangents have the size that the gain gives them, which may lie outside of float16's range. Beside the
        blocks the norm is so little that its products are exact at every level of precision.
        """
        gained = cotangent.astype(kernels.dtype) * kernels
        exact = products.of_one_token()
        return pullback_folded(residuals, gained - jnp.mean(gained, axis=-1, keepdims=True), exact)

    def null_directions(self, before: NullDirections, output: jax.Array) -> NullDirections:
        """1 / g of all tokens, and (y - b) / g^2 of each."""
        del before  # nothing passes the division by std
        gain, bias = self.scale.astype(output.dtype), self.bias.astype(output.dtype)
        shared, own = _null_directions(gain, bias, output)
        return NullDirections(shared[:, None], own[..., None])

    def cost(self, sizes: Sizes) -> Cost:
        """Of a norm whose gain is not folded, over the active tokens."""
        width, values = self.scale.shape[0], sizes.tokens * (self.scale.shape[0] + 1)
        return Cost(
            pullback=sizes.active * sizes.rows * width,
            residuals=values * sizes.itemsize,
            kernels=width * sizes.itemsize,
        )


def layer_norm_null_directions(scale: jax.Array | float, bias: jax.Array | float, embedding: jax.Array) -> jax.Array:
    """The two directions that the output of a LayerNorm cannot move in, for an `OwnEncoder` that ends in one.

    Args:
        scale: g, [K], without a zero; 1.0 where it has none.
        bias: b, [K]; 0.0 where it has none.
        embedding: y = g u + b, [K].

    Returns:
        [K, 2]: 1 / g, which is exact, and (y - b) / g^2, null up to the norm's epsilon over the variance. Of a mean
        over tokens that are normed the first alone is left: ``[:, :1]``.
    """
    scale, bias = (jnp.broadcast_to(jnp.asarray(part, embedding.dtype), embedding.shape) for part in (scale, bias))
    return jnp.stack(_null_directions(scale, bias, embedding), axis=-1)


def _null_directions(scale: jax.Array, bias: jax.Array, output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of length one: shared by all tokens [d], and of each [..., d]."""
    return _unit(1.0 / scale), _unit((output - bias) / scale**2)


def pullback_folded(
    residuals: NormResiduals | None,
    cotangent: jax.Array,
    products: Products,
    scale: jax.Array | None = None,
    onto: jax.Array | None = None,
) -> jax.Array:
    """What is left of the pullback behind a kernel that the gain and the mean are folded into.

    Args:
        residuals: of the norm; None if there is none.
        cotangent: v [..., R, d] with zero mean, as it is stored.
        products: takes the products.
        scale: what is missing in v, see `Products.kernel`.
        onto: what it is added to: the cotangent of what passes by on the residual connection, as it is stored.

    Returns:
        (v - u (u . v) / d) / std, in the residuals' dtype; its sum with ``onto``, stored.
    """
    if residuals is None:
        return added(products, onto, cotangent if scale is None else cotangent.astype(scale.dtype) * scale)
    normalized, inverse_std = residuals
    factor = inverse_std if scale is None else inverse_std * scale
    if onto is not None and layer_norm_gpu.fits(products, onto.shape):
        return layer_norm_gpu.add_pullback(cotangent, onto, normalized, factor)
    along = products.summed("...rd,...d->...r", cotangent, normalized) / normalized.shape[-1]
    left = cotangent.astype(along.dtype) - along[..., None] * normalized[..., None, :]
    return added(products, onto, left * factor[..., None, None])


def pullback_folded_turned(
    residuals: NormResiduals | None, cotangent: jax.Array, products: Products, scale: jax.Array | None = None
) -> jax.Array:
    """`pullback_folded` with rows last, [..., d, R], added to nothing."""
    if residuals is None:
        return pullback_folded(None, cotangent, products, scale)
    normalized, inverse_std = residuals
    along = products.summed("...dr,...d->...r", cotangent, normalized) / normalized.shape[-1]
    left = cotangent.astype(along.dtype) - normalized[..., :, None] * along[..., None, :]
    return left * (inverse_std if scale is None else inverse_std * scale)[..., None, None]


def added(products: Products, onto: jax.Array | None, update: jax.Array) -> jax.Array:
    """A cotangent, as it is stored, with an update; the update as it is where there is nothing to add it to."""
    return update if onto is None else products.stored(onto.astype(update.dtype) + update)


def _unit(directions: jax.Array) -> jax.Array:
    return directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
