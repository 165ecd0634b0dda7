"""Densities in closed form: samples, and their exact log density.

They are pytrees, so that one compiled program serves all densities of a kind and a shape.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Density(Protocol):
    """A distribution of vectors whose log density is known."""

    @property
    def name(self) -> str:
        """What it is."""
        ...

    @property
    def size(self) -> int:
        """D."""
        ...

    def sample(self, key: jax.Array, count: int) -> jax.Array:
        """Vectors [count, D]."""
        ...

    def log_density(self, x: jax.Array) -> jax.Array:
        """Vectors [..., D] to log p [...], nats."""
        ...


@functools.partial(jax.tree_util.register_dataclass, data_fields=["means", "scales", "weights"], meta_fields=["name"])
@dataclass(frozen=True)
class Mixture:
    """Isotropic Gaussians.

    Attributes:
        name: what it is.
        means: [C, D].
        scales: standard deviations [C].
        weights: [C], summing to one.
    """

    name: str
    means: jax.Array
    scales: jax.Array
    weights: jax.Array

    @property
    def size(self) -> int:
        """D."""
        return self.means.shape[1]

    def sample(self, key: jax.Array, count: int) -> jax.Array:
        """Vectors [count, D]."""
        choice, noise = jax.random.split(key)
        component = jax.random.choice(choice, len(self.weights), (count,), p=self.weights)
        return self.means[component] + self.scales[component, None] * jax.random.normal(noise, (count, self.size))

    def log_density(self, x: jax.Array) -> jax.Array:
        """Vectors [..., D] to log p [...], nats."""
        squared = jnp.sum((x[..., None, :] - self.means) ** 2, axis=-1) / self.scales**2
        logs = -0.5 * squared - self.size * jnp.log(self.scales) - 0.5 * self.size * math.log(2 * math.pi)
        return jax.nn.logsumexp(logs + jnp.log(self.weights), axis=-1)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["axes", "deviations"], meta_fields=["name"])
@dataclass(frozen=True)
class Gaussian:
    """One Gaussian of mean zero.

    Attributes:
        name: what it is.
        axes: orthonormal columns [D, D].
        deviations: standard deviations along them [D].
    """

    name: str
    axes: jax.Array
    deviations: jax.Array

    @property
    def size(self) -> int:
        """D."""
        return len(self.deviations)

    def sample(self, key: jax.Array, count: int) -> jax.Array:
        """Vectors [count, D]."""
        return (self.deviations * jax.random.normal(key, (count, self.size))) @ self.axes.T

    def log_density(self, x: jax.Array) -> jax.Array:
        """Vectors [..., D] to log p [...], nats."""
        squared = jnp.sum((x @ self.axes / self.deviations) ** 2, axis=-1)
        return -0.5 * squared - jnp.sum(jnp.log(self.deviations)) - 0.5 * self.size * math.log(2 * math.pi)


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["name", "size", "freedom"])
@dataclass(frozen=True)
class Student:
    """The multivariate Student distribution: a Gaussian whose width is drawn for each vector.

    Attributes:
        name: what it is.
        size: D.
        freedom: degrees of freedom; the fewer, the heavier the tails.
    """

    name: str
    size: int
    freedom: float

    def sample(self, key: jax.Array, count: int) -> jax.Array:
        """Vectors [count, D]."""
        normal, chi = jax.random.split(key)
        scale = jnp.sqrt(0.5 * self.freedom / jax.random.gamma(chi, 0.5 * self.freedom, (count, 1)))
        return jax.random.normal(normal, (count, self.size)) * scale

    def log_density(self, x: jax.Array) -> jax.Array:
        """Vectors [..., D] to log p [...], nats."""
        half = 0.5 * (self.freedom + self.size)
        constant = math.lgamma(half) - math.lgamma(0.5 * self.freedom)
        constant -= 0.5 * self.size * math.log(self.freedom * math.pi)
        return constant - half * jnp.log1p(jnp.sum(x**2, axis=-1) / self.freedom)


def mixture(name: str, means: np.ndarray, scales: np.ndarray, weights: np.ndarray) -> Mixture:
    """The mixture of NumPy arrays, see `Mixture`."""
    return Mixture(name, *(jnp.asarray(array, jnp.float32) for array in (means, scales, weights)))


def random_mixture(size: int, seed: int = 0, components: int = 8, apart: float = 4.0) -> Mixture:
    """A mixture of isotropic Gaussians with random means, widths and weights.

    Means are N(0, apart^2 / (2 D) I): two of them lie about ``apart`` from each other in any number of dimensions.
    Widths are uniform in [0.5, 1]; weights are a Dirichlet(3, ..., 3) draw.
    """
    rng = np.random.default_rng((seed, size))
    means = rng.normal(size=(components, size)) * apart / math.sqrt(2 * size)
    scales = rng.uniform(0.5, 1.0, components)
    weights = rng.dirichlet(np.full(components, 3.0))
    name = f"mixture-{size}d" + ("" if apart == 4.0 else f", {apart:g} apart")
    return mixture(name, means, scales, weights)


def correlated_gaussian(size: int, seed: int = 0) -> Gaussian:
    """One Gaussian whose standard deviations run from 1 to 1/4 along random axes."""
    rng = np.random.default_rng((seed, size, 1))
    axes = np.linalg.qr(rng.normal(size=(size, size)))[0]
    deviations = np.geomspace(1.0, 0.25, size)
    return Gaussian(f"gaussian-{size}d", jnp.asarray(axes, jnp.float32), jnp.asarray(deviations, jnp.float32))


def ring(width: float = 0.25) -> Mixture:
    """A circle of radius 2, denser on its right side, blurred."""
    angles = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    weights = np.exp(np.cos(angles))
    return mixture("ring-2d", 2 * _directions(angles), np.full(128, width), weights / weights.sum())


def two_spirals(width: float = 0.2) -> Mixture:
    """Two spirals wound into each other, blurred; denser inside, where the arms are shorter."""
    angles = np.linspace(0.5 * np.pi, 3 * np.pi, 128)
    arm = (angles / np.pi)[:, None] * _directions(angles)
    return mixture("spirals-2d", np.concatenate([arm, -arm]), np.full(256, width), np.full(256, 1 / 256))


def _directions(angles: np.ndarray) -> np.ndarray:
    """Unit vectors of the plane, [N, 2]."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def student(size: int, freedom: float = 4.0) -> Student:
    """Heavy tails: the Student distribution with 4 degrees of freedom."""
    return Student(f"student-{size}d", size, freedom)
