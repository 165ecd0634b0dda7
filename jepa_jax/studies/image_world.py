"""A world of pictures with known probabilities: factors with set frequencies; some combinations never occur."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

SIZE = 16
"""Side of a picture, pixels."""

FACTORS: dict[str, tuple[float, ...]] = {
    "shape": (0.55, 0.30, 0.15),
    "color": (0.60, 0.25, 0.15),
    "size": (0.65, 0.35),
    "background": (0.70, 0.30),
}
"""Frequencies of each factor's values; position is uniform, and noise is laid over everything."""

NEVER: tuple[tuple[int, ...], ...] = ((2, 1, 0, 0), (1, 2, 1, 0), (0, 1, 0, 1), (2, 0, 1, 1))
"""Combinations of (shape, color, size, background) that no training picture shows."""

COLORS = np.array([[0.9, 0.2, 0.2], [0.2, 0.8, 0.3], [0.3, 0.4, 0.95]], np.float32)
GROUNDS = np.array([0.15, 0.6], np.float32)
RADII = (0.16, 0.28)


@dataclass(frozen=True)
class World:
    """All combinations and how frequent they are.

    Attributes:
        combinations: [C, 4], values of shape, color, size and background.
        frequencies: [C], summing to one; zero for those that never occur.
    """

    combinations: np.ndarray
    frequencies: np.ndarray


def world() -> World:
    """The combinations with their true frequencies: products of the factors', without those that never occur."""
    combinations = np.array(list(itertools.product(*(range(len(values)) for values in FACTORS.values()))))
    shares = [np.array(values)[column] for values, column in zip(FACTORS.values(), combinations.T, strict=True)]
    frequencies = np.prod(shares, axis=0)
    frequencies[[tuple(row) in NEVER for row in combinations.tolist()]] = 0.0
    return World(combinations, frequencies / frequencies.sum())


def draw(rng: np.random.Generator, factors: np.ndarray) -> np.ndarray:
    """Pictures of given factors, uint8 [B, SIZE, SIZE, 3]: a disc, box or diamond at a random place, with noise.

    Args:
        rng: of places and noise.
        factors: [B, 4].
    """
    count = len(factors)
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    place = rng.uniform(0.3, 0.7, (2, count, 1, 1)).astype(np.float32)
    y, x = axis[None, :, None] - place[0], axis[None, None, :] - place[1]
    distances = np.stack([np.hypot(y, x), np.maximum(np.abs(y), np.abs(x)), (np.abs(y) + np.abs(x)) * 0.75])
    shape, color, size, ground = factors.T
    distance = distances[shape, np.arange(count)]
    radius = np.asarray(RADII, np.float32)[size][:, None, None]
    inside = np.clip((radius - distance) * SIZE + 0.5, 0, 1)[..., None]  # a soft edge, one pixel wide
    pictures = inside * COLORS[color][:, None, None] + (1 - inside) * GROUNDS[ground][:, None, None, None]
    noise = rng.normal(0, 0.03, pictures.shape).astype(np.float32)
    return (np.clip(pictures + noise, 0, 1) * 255 + 0.5).astype(np.uint8)
