"""Singular values by SVD, in the Jacobian's own precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def compress(jacobian: jax.Array) -> jax.Array:
    """[K, D] to a factor F [K, min(K, D)] with F F^T = J J^T: the R of a QR decomposition of J^T.

    Backward stable: it changes singular values by about the rounding unit times the largest.
    """
    if jacobian.shape[0] >= jacobian.shape[1]:
        return jacobian
    return jnp.linalg.qr(jacobian.T, mode="r").T


def singular_values(factor: jax.Array, basis: jax.Array | None = None) -> jax.Array:
    """Singular values of B^T J, descending.

    Args:
        factor: what `compress` returned.
        basis: orthonormal columns B [K, L] to project on; None for all of J.

    Returns:
        [min(L, D)].
    """
    return jnp.linalg.svd(factor if basis is None else basis.T @ factor, compute_uv=False)
