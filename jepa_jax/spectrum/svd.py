"""The spectrum by Householder QR of J^T and SVD of R, in the Jacobian's own precision: backward stable, and slowest.

It changes singular values by about the rounding unit times the largest. Works for any K and D, on any backend.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def compress(columns: jax.Array) -> jax.Array:
    """J^T, [D, K], to a factor F [K, min(K, D)] with F F^T = J J^T: R^T of the QR decomposition of J^T."""
    if columns.shape[1] >= columns.shape[0]:
        return columns.T
    return jnp.linalg.qr(columns, mode="r").T


def merge(factors: jax.Array) -> jax.Array:
    """Factors [n, K, L] of parts of the input to that of the whole."""
    parts, outputs, width = factors.shape
    return compress(factors.transpose(0, 2, 1).reshape(parts * width, outputs))


def singular_values(factor: jax.Array, basis: jax.Array | None = None) -> jax.Array:
    """Singular values of B^T J, descending.

    Args:
        factor: what `compress` returned.
        basis: orthonormal columns B [K, L] to project on; None for all of J.

    Returns:
        [min(L, D)].
    """
    return jnp.linalg.svd(factor if basis is None else basis.T @ factor, compute_uv=False)


def left_vectors(factor: jax.Array, basis: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Left singular vectors of B^T J, [L, min(L, D)], and `singular_values`."""
    projected = factor if basis is None else basis.T @ factor
    vectors, values, _ = jnp.linalg.svd(projected, full_matrices=False)
    return vectors, values


def triangle(factor: jax.Array, basis: jax.Array | None = None) -> jax.Array:
    """Lower triangle T [L, L], L <= D, with T T^T = B^T J J^T B."""
    return jnp.linalg.qr((factor if basis is None else basis.T @ factor).T, mode="r").T


def size(factor: jax.Array) -> jax.Array:
    """|J|, the Frobenius norm."""
    return jnp.linalg.norm(factor)


def residual(factor: jax.Array, direction: jax.Array) -> jax.Array:
    """|J^T n| along a unit vector n [K]."""
    return jnp.linalg.norm(direction @ factor)
