"""Densities in closed form: samples, and their exact log density up to nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Density:
    """A distribution of vectors whose log density is known.

    Attributes:
        name: what it is.
        size: D.
        sample: (key, count) to vectors [count, D].
        log_density: vectors [..., D] to log p [...], nats.
    """

    name: str
    size: int
    sample: Callable[[jax.Array, int], jax.Array]
    log_density: Callable[[jax.Array], jax.Array]


def mixture(name: str, means: np.ndarray, scales: np.ndarray, weights: np.ndarray) -> Density:
    """Gaussian mixture of isotropic components.

    Args:
        name: of the density.
        means: [C, D].
        scales: standard deviations [C].
        weights: [C], summing to one.
    """
    count, size = means.shape
    centers, spread, shares = (jnp.asarray(a, jnp.float32) for a in (means, scales, weights))

    def sample(key: jax.Array, number: int) -> jax.Array:
        choice, noise = jax.random.split(key)
        component = jax.random.choice(choice, count, (number,), p=shares)
        return centers[component] + spread[component, None] * jax.random.normal(noise, (number, size))

    def log_density(x: jax.Array) -> jax.Array:
        squared = jnp.sum((x[..., None, :] - centers) ** 2, axis=-1) / spread**2
        logs = -0.5 * squared - size * jnp.log(spread) - 0.5 * size * math.log(2 * math.pi)
        return jax.nn.logsumexp(logs + jnp.log(shares), axis=-1)

    return Density(name, size, sample, log_density)


def random_mixture(size: int, components: int = 8, seed: int = 0) -> Density:
    """A mixture with unequal weights and widths; its means lie about four apart, whatever D is."""
    rng = np.random.default_rng((seed, size))
    means = rng.normal(size=(components, size)) * 2.0 * math.sqrt(2 / size)
    scales = rng.uniform(0.5, 1.0, components)
    weights = rng.dirichlet(np.full(components, 3.0))
    return mixture(f"mixture-{size}d", means, scales, weights)


def correlated_gaussian(size: int, seed: int = 0) -> Density:
    """One Gaussian whose standard deviations run from 1 to 1/4 along random axes."""
    rng = np.random.default_rng((seed, size, 1))
    axes = np.linalg.qr(rng.normal(size=(size, size)))[0]
    deviations = np.geomspace(1.0, 0.25, size)
    root = jnp.asarray(axes * deviations, jnp.float32)
    inverse = jnp.asarray((axes / deviations).T, jnp.float32)
    constant = float(-np.sum(np.log(deviations)) - 0.5 * size * math.log(2 * math.pi))

    def sample(key: jax.Array, number: int) -> jax.Array:
        return jax.random.normal(key, (number, size)) @ root.T

    def log_density(x: jax.Array) -> jax.Array:
        return constant - 0.5 * jnp.sum((x @ inverse.T) ** 2, axis=-1)

    return Density(f"gaussian-{size}d", size, sample, log_density)


def curve(name: str, points: np.ndarray, width: float) -> Density:
    """Points drawn from a dense set along a curve, equally likely, blurred by a Gaussian: again a mixture."""
    count = len(points)
    return mixture(name, points, np.full(count, width), np.full(count, 1 / count))


def ring(width: float = 0.25) -> Density:
    """A circle of radius 2, denser on its right side, blurred."""
    angles = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    weights = np.exp(np.cos(angles))
    points = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return mixture("ring-2d", points, np.full(128, width), weights / weights.sum())


def two_spirals(width: float = 0.2) -> Density:
    """Two spirals wound into each other, blurred; equal steps of angle make them denser inside."""
    angles = np.linspace(0.5 * np.pi, 3 * np.pi, 128)
    arm = (angles / np.pi)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return curve("spirals-2d", np.concatenate([arm, -arm]), width)


def student(size: int, freedom: float = 4.0) -> Density:
    """Heavy tails: the multivariate Student distribution with 4 degrees of freedom."""
    constant = math.lgamma((freedom + size) / 2) - math.lgamma(freedom / 2) - 0.5 * size * math.log(freedom * math.pi)

    def sample(key: jax.Array, number: int) -> jax.Array:
        normal, chi = jax.random.split(key)
        scale = jnp.sqrt(0.5 * freedom / jax.random.gamma(chi, 0.5 * freedom, (number, 1)))
        return jax.random.normal(normal, (number, size)) * scale

    def log_density(x: jax.Array) -> jax.Array:
        return constant - 0.5 * (freedom + size) * jnp.log1p(jnp.sum(x**2, axis=-1) / freedom)

    return Density(f"student-{size}d", size, sample, log_density)
