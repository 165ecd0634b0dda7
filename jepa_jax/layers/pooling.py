"""From all tokens to one: the class token alone, or the mean over the patches."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jepa_jax.layers.layer import Cost, Layer, NullDirections, Sizes
from jepa_jax.layers.schedule import Schedule
from jepa_jax.numerics.products import Products


@dataclass(frozen=True)
class Pooling(Layer):
    """From N tokens to one.

    Attributes:
        prefix: tokens that stand before the patches.
        patches: P.
    """

    prefix: int
    patches: int

    def active(self, tokens: int) -> int:
        """How many leading tokens of N have a cotangent."""
        return tokens

    def cost(self, sizes: Sizes) -> Cost:
        """No products."""
        del sizes
        return Cost()


@dataclass(frozen=True)
class ClassToken(Pooling):
    """The first token. The others get no cotangent, so that the last block is pruned to this one."""

    def active(self, tokens: int) -> int:
        """One."""
        return min(tokens, 1)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, 1, d]."""
        return tokens[:, :1]

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, tuple[()]]:
        """[N, d] -> [1, d]; nothing is kept."""
        return tokens[:1], ()

    def pullback(
        self, kernels: None, residuals: tuple[()], cotangent: jax.Array, products: Products, schedule: Schedule
    ) -> jax.Array:
        """See `Layer.pullback`: [1, R, d], which is the first token's, as it is."""
        del kernels, residuals, products, schedule
        return cotangent

    def null_directions(self, before: NullDirections, output: jax.Array) -> NullDirections:
        """The first token's, all of them."""
        del output
        return _of_one(jnp.concatenate([before.shared, before.own[0]], axis=-1))


@dataclass(frozen=True)
class MeanPatches(Pooling):
    """The mean over the patches."""

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, 1, d]."""
        return jnp.mean(tokens[:, self.prefix :], axis=1, keepdims=True)

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, tuple[()]]:
        """[N, d] -> [1, d]; nothing is kept."""
        return self(tokens[None])[0], ()

    def pullback(
        self, kernels: None, residuals: tuple[()], cotangent: jax.Array, products: Products, schedule: Schedule
    ) -> jax.Array:
        """See `Layer.pullback`: [1, R, d] -> [N, R, d], an equal share for every patch."""
        del kernels, residuals, products, schedule
        shares = jnp.broadcast_to(cotangent / self.patches, (self.patches, *cotangent.shape[1:]))
        return jnp.pad(shares, ((self.prefix, 0), (0, 0), (0, 0)))

    def null_directions(self, before: NullDirections, output: jax.Array) -> NullDirections:
        """Those that all tokens share."""
        del output
        return _of_one(before.shared)


def _of_one(directions: jax.Array) -> NullDirections:
    """Null directions [d, m] of a single token."""
    return NullDirections(directions, jnp.zeros((1, directions.shape[0], 0), directions.dtype))
