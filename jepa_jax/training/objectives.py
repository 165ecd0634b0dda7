"""Objectives of joint-embedding training: how far views lie apart, and how far embeddings are from collapse.

Every function takes the embeddings of V views of the same B examples, [V, B, K].
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jepa_jax.errors import ArgumentError


def invariance(views: jax.Array) -> jax.Array:
    """Mean squared distance of each view's embedding from the mean over views, [V, B, K] to a scalar."""
    return jnp.mean((views - views.mean(axis=0, keepdims=True)) ** 2)


def sigreg(embeddings: jax.Array, key: jax.Array, directions: int = 128) -> jax.Array:
    """Distance of a batch of embeddings from N(0, I): SIGReg of LeJEPA (Balestriero & LeCun 2025).

    Projects on random unit directions u and compares, in each, the empirical characteristic function
    with exp(-t^2 / 2), the one of N(0, 1): the Epps-Pulley statistic with a Gaussian window,

        B * integral |mean_b exp(i t <u, z_b>) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,

    by the trapezoid rule on [-4, 4], averaged over directions. The integrand is even, so half of it is computed.

    Args:
        embeddings: [B, K].
        key: picks the directions; a fresh one at each step.
        directions: how many.

    Returns:
        A scalar of order 1 for embeddings that are N(0, I), and of order B for collapsed ones.
    """
    slices = random_directions(key, embeddings.shape[-1], directions, embeddings.dtype)
    return epps_pulley(embeddings @ slices).mean()


def random_directions(key: jax.Array, size: int, count: int, dtype: jnp.dtype) -> jax.Array:
    """Unit vectors, uniform on the sphere, as columns [size, count]."""
    directions = jax.random.normal(key, (size, count), dtype)
    return directions / jnp.linalg.norm(directions, axis=0, keepdims=True)


def epps_pulley(samples: jax.Array) -> jax.Array:
    """The statistic above for B samples in each of M directions, [B, M] to [M].

    The points t are multiples of 1/2, so that all cosines and sines follow from the first by angle addition: a few
    products in place of eight slow functions.
    """
    step, last = 0.5, 8
    first = cosine, sine = jnp.cos(step * samples), jnp.sin(step * samples)
    total = jnp.zeros(samples.shape[1:], samples.dtype)
    for i in range(1, last + 1):  # at t = 0 there is no gap
        normal = math.exp(-0.5 * (i * step) ** 2)
        gap = (cosine.mean(axis=0) - normal) ** 2 + sine.mean(axis=0) ** 2
        total = total + (0.5 if i == last else 1.0) * step * normal * gap
        cosine, sine = cosine * first[0] - sine * first[1], sine * first[0] + cosine * first[1]
    return 2 * samples.shape[0] * total


def variance_hinge(embeddings: jax.Array, target: float = 1.0) -> jax.Array:
    """VICReg's variance term: mean over dimensions of max(0, target - std), [B, K] to a scalar."""
    std = jnp.sqrt(embeddings.var(axis=0, ddof=1) + 1e-4)
    return jnp.mean(jnp.maximum(0.0, target - std))


def covariance_penalty(embeddings: jax.Array) -> jax.Array:
    """VICReg's covariance term: squared off-diagonal covariances summed and divided by K, [B, K] to a scalar."""
    count, size = embeddings.shape
    centred = embeddings - embeddings.mean(axis=0)
    covariance = centred.T @ centred / (count - 1)
    return (jnp.sum(covariance**2) - jnp.sum(jnp.diagonal(covariance) ** 2)) / size


Terms = dict[str, jax.Array]
"""Named scalars that a loss is made of, for the log."""


@dataclass(frozen=True)
class LeJEPA:
    """Invariance of views and SIGReg on each view's embeddings (arXiv 2511.08544).

    Departs from the paper in that the scored embedding itself carries the regulariser, without a projector:
    what JEPA-SCORE differentiates is then what was made Gaussian.

    Attributes:
        weight: lambda; the loss is (1 - lambda) * invariance + lambda * SIGReg. 0.05 is the paper's. Without
            regulariser (0) the embedding collapses.
        directions: random directions per step and view.
    """

    weight: float = 0.05
    directions: int = 128
    gaussian = True

    def __post_init__(self):
        if not 0 <= self.weight < 1:
            raise ArgumentError(f"weight={self.weight} must lie in [0, 1).")

    def __call__(self, views: jax.Array, key: jax.Array) -> tuple[jax.Array, Terms]:
        """Loss and its terms for embeddings [V, B, K]."""
        keys = jax.random.split(key, views.shape[0])
        spread = jnp.mean(jax.vmap(lambda z, k: sigreg(z, k, self.directions))(views, keys))
        apart = invariance(views)
        return (1 - self.weight) * apart + self.weight * spread, {"invariance": apart, "sigreg": spread}


@dataclass(frozen=True)
class VICReg:
    """Variance, invariance, covariance (Bardes, Ponce & LeCun 2022, arXiv 2105.04906), for any number of views.

    With two views, invariance is the paper's mean squared distance divided by 4 (distance from the mean, not
    from each other), so the paper's weight 25 is 100 here.

    Attributes:
        invariance, variance, covariance: weights of the terms.
    """

    invariance: float = 100.0
    variance: float = 25.0
    covariance: float = 1.0
    gaussian = False

    def __call__(self, views: jax.Array, key: jax.Array) -> tuple[jax.Array, Terms]:
        """Loss and its terms for embeddings [V, B, K]."""
        del key
        terms = {
            "invariance": invariance(views),
            "variance": jnp.mean(jax.vmap(variance_hinge)(views)),
            "covariance": jnp.mean(jax.vmap(covariance_penalty)(views)),
        }
        weights = dataclasses.asdict(self)
        return sum((weights[name] * term for name, term in terms.items()), start=jnp.zeros(())), terms


def whiten(embeddings: jax.Array, ridge: float = 1e-4) -> jax.Array:
    """Embeddings [B, K] without mean and with covariance I, by Cholesky (W-MSE, arXiv 2007.06346).

    Args:
        embeddings: B well above K.
        ridge: share of the mean variance that is added to each; directions below it stay small.
    """
    centred = embeddings - embeddings.mean(axis=0)
    covariance = centred.T @ centred / embeddings.shape[0]
    size = covariance.shape[0]
    floor = ridge * jnp.trace(covariance) / size
    factor = jnp.linalg.cholesky(covariance + floor * jnp.eye(size, dtype=covariance.dtype))
    return jax.scipy.linalg.solve_triangular(factor, centred.T, lower=True).T


def embedding_rank(embeddings: jax.Array) -> jax.Array:
    """Effective rank (Roy & Vetterli 2007) of the embeddings' covariance, [B, K] to a scalar in [1, K].

    The exponential of the entropy of the eigenvalues, which are taken to sum to one.
    """
    centred = embeddings - embeddings.mean(axis=0)
    variances = jnp.maximum(jnp.linalg.eigvalsh(centred.T @ centred), 0.0)
    shares = variances / jnp.maximum(jnp.sum(variances), jnp.finfo(variances.dtype).tiny)
    return jnp.exp(-jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.maximum(shares, 1e-30)), 0.0)))
