"""Orthonormal bases."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def complement_basis(directions: jax.Array) -> jax.Array:
    """Orthonormal basis [K, max(0, K - m)] of what is orthogonal to the directions [K, m]."""
    size, count = directions.shape
    if count >= size:
        return jnp.zeros((size, 0), directions.dtype)
    if count == 0:
        return jnp.eye(size, dtype=directions.dtype)
    return jnp.linalg.qr(directions, mode="complete")[0][:, count:]
