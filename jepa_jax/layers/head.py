"""What follows pooling in some families: a linear projection, and division by the length."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.layer import INITIAL, Cost, NullDirections, Sizes, TokenLayer
from jepa_jax.numerics.bases import complement_basis
from jepa_jax.numerics.products import Products


class Projection(TokenLayer, nnx.Module):
    """A linear map without bias, y = x W.

    One token is nothing beside the others, so that the pullback is exact at every level of precision.
    """

    def __init__(self, width: int, outputs: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(INITIAL(rngs.params(), (width, outputs)))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[..., d] -> [..., K]."""
        return tokens @ self.kernel

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, tuple[()]]:
        """[..., d] -> [..., K]; nothing is kept."""
        return self(tokens), ()

    def prepare(self, products: Products) -> jax.Array:
        """W^T, [K, d]."""
        del products
        return self.kernel.T

    def pullback_tokens(
        self, kernels: jax.Array, residuals: tuple[()], cotangent: jax.Array, products: Products
    ) -> jax.Array:
        """[..., R, K] -> [..., R, d]."""
        del residuals, products
        return cotangent @ kernels

    def null_directions(self, before: NullDirections, output: jax.Array) -> NullDirections:
        """All n with W n in the span of the null directions before: what a projection leaves of them."""
        outside = complement_basis(before.shared)
        kernel = self.kernel.astype(output.dtype)
        return before._replace(
            shared=complement_basis((outside.T @ kernel).T), own=jnp.zeros((*output.shape, 0), output.dtype)
        )

    def cost(self, sizes: Sizes) -> Cost:
        """Of one token."""
        inputs, outputs = self.kernel.shape
        return Cost(
            forward=inputs * outputs,
            pullback=sizes.rows * inputs * outputs,
            by_vjp=sizes.rows * inputs * outputs,
            kernels=inputs * outputs * sizes.itemsize,
        )


class L2Normalize(TokenLayer):
    """Division by the length, y = x / |x|; the pullback is c -> (c - y (y . c)) / |x|."""

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[..., K] -> [..., K]."""
        return tokens / jnp.linalg.norm(tokens, axis=-1, keepdims=True)

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """[..., K] -> [..., K]; that and 1 / |x| are kept."""
        unit = self(tokens)
        return unit, (unit, 1 / jnp.linalg.norm(tokens, axis=-1))

    def pullback_tokens(
        self, kernels: None, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array, products: Products
    ) -> jax.Array:
        """[..., R, K] -> [..., R, K]."""
        del kernels, products
        unit, inverse = residuals
        along = jnp.einsum("...rk,...k->...r", cotangent, unit)
        return (cotangent - along[..., None] * unit[..., None, :]) * inverse[..., None, None]

    def null_directions(self, before: NullDirections, output: jax.Array) -> NullDirections:
        """The output itself, and those combinations of the earlier directions that are orthogonal to it."""
        unit = (output[0] / jnp.linalg.norm(output[0]))[:, None]
        kept = before.shared @ complement_basis(before.shared.T @ unit) if before.shared.shape[-1] else before.shared
        return before._replace(shared=jnp.concatenate([unit, kept], axis=-1))

    def cost(self, sizes: Sizes) -> Cost:
        """Too little to count."""
        del sizes
        return Cost()
