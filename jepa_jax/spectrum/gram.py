"""Singular values as roots of the eigenvalues of J J^T in float64: one matrix product and a K x K eigensolve.

Squaring halves the digits: values below 1e-8 of the largest are lost in float64, which is far below
the noise of a float32 Jacobian (3e-6) and far below any structural singular value (2e-4 for DINOv2-L).
In float32 everything below 3e-4 would be lost, so this always computes in float64. For a float64
Jacobian whose smallest values matter, use `svd`. Both functions run inside `spectrum.float64_scope`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def compress(jacobian: jax.Array) -> jax.Array:
    """[K, D] to G = J J^T, [K, K] float64."""
    wide = jacobian.astype(jnp.float64)
    return jnp.matmul(wide, wide.T, precision=jax.lax.Precision.HIGHEST)


def singular_values(factor: jax.Array, basis: jax.Array | None = None) -> jax.Array:
    """Singular values of B^T J, descending, float64.

    Args:
        factor: what `compress` returned.
        basis: orthonormal columns B [K, L] to project on; None for all of J.

    Returns:
        [L]; where J has fewer columns than L, the surplus values are rounding noise.
    """
    gram = factor if basis is None else basis.T @ factor @ basis
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[::-1], 0.0))
