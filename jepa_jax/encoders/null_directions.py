"""Directions in embedding space along which an encoder's Jacobian is zero by construction.

An encoder that ends in LayerNorm, z = g * u + b with u the normalised token, obeys two identities
whatever its input: u sums to zero, and u has a fixed length (up to epsilon). Differentiating them,

    J^T (1 / g) = 0        exactly, and
    J^T ((z - b) / g^2) = 0    up to epsilon / variance,

so two of the K singular values of J hold nothing but rounding noise. The first identity survives a
mean over tokens, the second does not. A linear projection y = W^T z onto fewer dimensions (CLIP)
leaves none, since no W n lies in their span; division by the length, y / |y|, adds the embedding itself.
A score sums logs, so it must leave these directions out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jepa_jax.encoders.specs import ViTSpec


def null_direction_count(spec: ViTSpec) -> int:
    """Number m of structural null directions of the encoder's Jacobian."""
    count = 2 if spec.pooling == "class_token" else 1
    if spec.projection:
        count = max(0, count + spec.projection - spec.width)
    return max(1, count) if spec.l2_normalize else count


def null_directions(spec: ViTSpec, params: dict, pooled: jax.Array, embedding: jax.Array) -> jax.Array:
    """Null directions n with J^T n = 0, in embedding space.

    Args:
        spec: the architecture.
        params: the encoder's parameters.
        pooled: what the final LayerNorm gives after pooling, before any projection, [d].
        embedding: what the encoder returns, [K].

    Returns:
        [K, m], independent but not orthogonal, in the embedding's dtype.
    """
    directions = _of_layer_norm(spec, params, pooled)
    if spec.projection:
        directions = _through_projection(params["projection"]["kernel"].astype(pooled.dtype), directions)
    if spec.l2_normalize:
        directions = _through_division(directions, embedding)
    return directions


def _of_layer_norm(spec: ViTSpec, params: dict, pooled: jax.Array) -> jax.Array:
    scale = params["norm"]["scale"].astype(pooled.dtype)
    directions = [1.0 / scale]
    if spec.pooling == "class_token":
        directions.append((pooled - params["norm"]["bias"].astype(pooled.dtype)) / scale**2)
    return jnp.stack([n / jnp.linalg.norm(n) for n in directions], axis=-1)


def _through_projection(kernel: jax.Array, directions: jax.Array) -> jax.Array:
    """All n with W n in the span of the directions: what a projection [d, K] leaves of them."""
    outside = complement_basis(directions)
    return complement_basis((outside.T @ kernel).T)


def _through_division(directions: jax.Array, embedding: jax.Array) -> jax.Array:
    """z itself, and those combinations of the earlier directions that are orthogonal to it."""
    unit = (embedding / jnp.linalg.norm(embedding))[:, None]
    if directions.shape[-1] == 0:
        return unit
    return jnp.concatenate([unit, directions @ complement_basis(directions.T @ unit)], axis=-1)


def complement_basis(directions: jax.Array) -> jax.Array:
    """Orthonormal basis [K, max(0, K - m)] of what is orthogonal to the directions [K, m]."""
    size, count = directions.shape
    if count >= size:
        return jnp.zeros((size, 0), directions.dtype)
    if count == 0:
        return jnp.eye(size, dtype=directions.dtype)
    return jnp.linalg.qr(directions, mode="complete")[0][:, count:]
