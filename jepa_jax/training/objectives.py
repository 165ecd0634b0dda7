"""Objectives of joint-embedding training."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def invariance(views: jax.Array) -> jax.Array:
    """Mean squared distance between the two views' embeddings, [2, B, K] to a scalar."""
    return jnp.mean((views[0] - views[1]) ** 2)


def sigreg(embeddings: jax.Array, key: jax.Array, directions: int = 128) -> jax.Array:
    """Distance of a batch of embeddings from N(0, I): SIGReg of LeJEPA (Balestriero & LeCun 2025).

    Projects on random unit directions and compares, in each, the empirical characteristic function
    with exp(-t^2 / 2), the one of N(0, 1): the Epps-Pulley statistic with a Gaussian window,

        integral |mean_b exp(i t <u, z_b>) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,

    by the trapezoid rule on [-4, 4], averaged over directions.

    Args:
        embeddings: [B, K].
        key: picks the directions; a fresh one at each step.
        directions: how many.
    """
    slices = jax.random.normal(key, (embeddings.shape[-1], directions), embeddings.dtype)
    slices = slices / jnp.linalg.norm(slices, axis=0, keepdims=True)
    points = jnp.linspace(-4.0, 4.0, 17, dtype=embeddings.dtype)
    phase = (embeddings @ slices)[..., None] * points  # [B, directions, points]
    normal = jnp.exp(-0.5 * points**2)
    gap = (jnp.cos(phase).mean(0) - normal) ** 2 + jnp.sin(phase).mean(0) ** 2
    return jnp.mean(jnp.trapezoid(gap * normal, points)) / math.sqrt(2 * math.pi)
