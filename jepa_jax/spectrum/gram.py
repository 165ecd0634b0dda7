"""The spectrum from J J^T in float64: one matrix product, then a K x K eigensolve or, for the volume, a Cholesky.

Squaring halves the digits: values below 1e-8 of the largest are lost in float64, which is far below
the noise of a float32 Jacobian (3e-6) and far below any structural singular value (1e-5 for DINOv2-B).
In float32 everything below 3e-4 would be lost, so this always computes in float64. For a float64
Jacobian whose smallest values matter, use `svd`. All functions run inside `spectrum.float64_scope`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

CHUNK = 4096
"""Input values that are widened to float64 at a time, so that no second, twice as wide Jacobian exists."""


def compress(columns: jax.Array) -> jax.Array:
    """J^T, [D, K], to G = J J^T, [K, K] float64."""
    whole = columns.shape[0] // CHUNK * CHUNK
    if whole == 0:
        return _square(columns)

    def add(gram: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        return gram + _square(jax.lax.dynamic_slice_in_dim(columns, start, CHUNK)), None

    gram, _ = jax.lax.scan(add, _square(columns[whole:]), jnp.arange(0, whole, CHUNK))
    return gram


def _square(columns: jax.Array) -> jax.Array:
    wide = columns.astype(jnp.float64)
    return jnp.einsum("dk,dl->kl", wide, wide, precision=jax.lax.Precision.HIGHEST)


def merge(factors: jax.Array) -> jax.Array:
    """Factors [n, K, K] of parts of the input to that of the whole."""
    return functools.reduce(jnp.add, factors)


def singular_values(factor: jax.Array, basis: jax.Array | None = None) -> jax.Array:
    """Singular values of B^T J, descending, float64.

    Args:
        factor: what `compress` returned.
        basis: orthonormal columns B [K, L] to project on; None for all of J.

    Returns:
        [L]; where J has fewer columns than L, the surplus values are rounding noise.
    """
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(_projected(factor, basis))[::-1], 0.0))


def left_vectors(factor: jax.Array, basis: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Left singular vectors of B^T J, [L, L], and `singular_values`."""
    squares, vectors = jnp.linalg.eigh(_projected(factor, basis))
    return vectors[:, ::-1], jnp.sqrt(jnp.maximum(squares[::-1], 0.0))


def triangle(factor: jax.Array, basis: jax.Array | None = None) -> jax.Array:
    """Lower triangle T [L, L] with T T^T = B^T J J^T B, by Cholesky; NaN where rounding leaves that indefinite."""
    return jnp.linalg.cholesky(_projected(factor, basis))


def size(factor: jax.Array) -> jax.Array:
    """|J|, the Frobenius norm."""
    return jnp.sqrt(jnp.trace(factor))


def residual(factor: jax.Array, direction: jax.Array) -> jax.Array:
    """|J^T n| along a unit vector n [K]."""
    return jnp.sqrt(jnp.maximum(direction @ factor @ direction, 0.0))


def _projected(factor: jax.Array, basis: jax.Array | None) -> jax.Array:
    return factor if basis is None else basis.T @ factor @ basis
