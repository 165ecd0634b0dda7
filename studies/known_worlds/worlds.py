"""Latents of known density behind smooth invertible mixings: a sample's log-density follows from its latents."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

STRETCH = 0.8
"""Largest log-scale of a coupling."""

CORRELATION = 0.9
"""Of the latents of two views."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["mixing", "size", "latents"]
)
@dataclass(frozen=True)
class World:
    """x = g(s).

    Attributes:
        mixing: ``linear``, ``spiral``, ``banana``, ``sinusoid`` or ``coupling``.
        size: D.
        latents: ``normal`` or ``laplace``, of variance one.
        weights: random rotations and networks.
    """

    mixing: str
    size: int
    latents: str
    weights: dict[str, Any]

    @property
    def name(self) -> str:
        """What it is."""
        return f"{self.mixing}-{self.size}d" + (" laplace" if self.latents == "laplace" else "")

    def draw(self, key: jax.Array, count: int) -> jax.Array:
        """Latents [count, D]."""
        if self.latents == "laplace":
            return jax.random.laplace(key, (count, self.size)) / math.sqrt(2)
        return jax.random.normal(key, (count, self.size))

    def partner(self, latents: jax.Array, key: jax.Array) -> jax.Array:
        """Latents of another view: correlated by `CORRELATION`, of the same law (of Laplace ones, some drawn anew)."""
        fresh = self.draw(key, len(latents))
        if self.latents == "laplace":
            keep = jax.random.bernoulli(jax.random.fold_in(key, 1), CORRELATION, latents.shape)
            return jnp.where(keep, latents, fresh)
        return CORRELATION * latents + math.sqrt(1 - CORRELATION**2) * fresh

    def mix(self, latents: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Latents [B, D] to x [B, D] and log |det dx/ds| [B]."""
        return MIXINGS[self.mixing](latents, self.weights)

    def log_density(self, latents: jax.Array) -> jax.Array:
        """log p(x) at x = g(s), of latents s [B, D]: [B], nats."""
        if self.latents == "laplace":
            logs = jnp.sum(-math.sqrt(2) * jnp.abs(latents) - 0.5 * math.log(2), axis=-1)
        else:
            logs = -0.5 * jnp.sum(latents**2, axis=-1) - 0.5 * self.size * math.log(2 * math.pi)
        return logs - self.mix(latents)[1]


def world(mixing: str, size: int, seed: int, latents: str = "normal") -> World:
    """A world with random rotations and networks of its own."""
    rng = np.random.default_rng((seed, size, sorted(MIXINGS).index(mixing)))
    rotations = [np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(2)]
    half = size // 2
    nets = [
        {
            "in": rng.normal(size=(half, 32)) / math.sqrt(half),
            "scale": rng.normal(size=(32, size - half)) / math.sqrt(32),
            "shift": rng.normal(size=(32, size - half)) / math.sqrt(32),
        }
        for _ in range(2)
    ]
    weights = {"rotations": rotations, "nets": nets, "scales": np.geomspace(1, 0.25, size)}
    return World(mixing, size, latents, jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights))


def _linear(s: jax.Array, weights: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    scales = weights["scales"]
    return (s * scales) @ weights["rotations"][0], jnp.full(len(s), jnp.sum(jnp.log(scales)))


def _spiral(s: jax.Array, weights: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    """Turning by an angle that hangs on the radius alone keeps areas."""
    first, second = s[:, 0::2], s[:, 1::2]
    angle = 1.5 * jnp.sqrt(first**2 + second**2 + 1e-6)
    turned = (
        first * jnp.cos(angle) - second * jnp.sin(angle),
        first * jnp.sin(angle) + second * jnp.cos(angle),
    )
    return jnp.concatenate(turned, axis=1) @ weights["rotations"][0], jnp.zeros(len(s))


def _banana(s: jax.Array, weights: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    first, second = s[:, 0::2], s[:, 1::2]
    bent = jnp.concatenate([first, second + 0.7 * (first**2 - 1)], axis=1)
    return bent @ weights["rotations"][0], jnp.zeros(len(s))


def _sinusoid(s: jax.Array, weights: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    """Triangular with ones on the diagonal: volumes are kept."""
    for rotation in weights["rotations"]:
        waves = jnp.concatenate([0.5 * jnp.sin(2 * s[:, 1:]), jnp.zeros_like(s[:, :1])], axis=1)
        s = (s + waves) @ rotation
    return s, jnp.zeros(len(s))


def _coupling(s: jax.Array, weights: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    total = jnp.zeros(len(s))
    for net, rotation in zip(weights["nets"], weights["rotations"], strict=True):
        half = net["in"].shape[0]
        hidden = jnp.tanh(2 * s[:, :half] @ net["in"])
        scale = STRETCH * jnp.tanh(hidden @ net["scale"])
        moved = s[:, half:] * jnp.exp(scale) + hidden @ net["shift"]
        s = jnp.concatenate([s[:, :half], moved], axis=1) @ rotation
        total = total + scale.sum(axis=1)
    return s, total


MIXINGS = {"linear": _linear, "spiral": _spiral, "banana": _banana, "sinusoid": _sinusoid, "coupling": _coupling}
"""Each takes latents [B, D] and weights to x [B, D] and log |det| [B]."""
