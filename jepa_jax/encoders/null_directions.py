"""Directions in embedding space along which an encoder's Jacobian is zero by construction.

An encoder that ends in LayerNorm, z = g * u + b with u the normalised token, obeys two identities
whatever its input: u sums to zero, and u has a fixed length (up to epsilon). Differentiating them,

    J^T (1 / g) = 0        exactly, and
    J^T ((z - b) / g^2) = 0    up to epsilon / variance,

so two of the K singular values of J hold nothing but rounding noise. The first identity survives a
mean over tokens, the second does not. A score sums logs, so it must leave these directions out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jepa_jax.encoders.specs import ViTSpec


def null_direction_count(spec: ViTSpec) -> int:
    """Number of structural null directions of the encoder's Jacobian."""
    return 2 if spec.pooling == "class_token" else 1


def null_directions(spec: ViTSpec, params: dict, embedding: jax.Array) -> jax.Array:
    """Null directions n with J^T n = 0, in embedding space.

    Args:
        spec: the architecture.
        params: the encoder's parameters.
        embedding: z, [K].

    Returns:
        Unit vectors, [K, m], not orthogonal to each other, in the embedding's dtype.
    """
    scale = params["norm"]["scale"].astype(embedding.dtype)
    bias = params["norm"]["bias"].astype(embedding.dtype)
    directions = [1.0 / scale]
    if null_direction_count(spec) == 2:
        directions.append((embedding - bias) / scale**2)
    return jnp.stack([n / jnp.linalg.norm(n) for n in directions], axis=-1)
