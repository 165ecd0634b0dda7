"""Procedurally drawn pictures: one coloured shape on a shaded ground. Endless, and nobody's property."""

from __future__ import annotations

import numpy as np


def draw_shapes(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Draw pictures of discs, boxes, diamonds and bars.

    Args:
        rng: source of randomness.
        count: how many.
        size: side in pixels.

    Returns:
        float32 [count, size, size, 3] in [0, 1].
    """
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    rows, columns = axis[None, :, None], axis[None, None, :]
    centers = rng.uniform(0.25, 0.75, (2, count, 1, 1)).astype(np.float32)
    radius = rng.uniform(0.12, 0.35, (count, 1, 1)).astype(np.float32)
    y, x = rows - centers[0], columns - centers[1]
    distances = np.stack(
        [np.hypot(y, x), np.maximum(np.abs(y), np.abs(x)), np.abs(y) + np.abs(x), np.maximum(np.abs(y), 3 * np.abs(x))]
    )
    distance = distances[rng.integers(4, size=count), np.arange(count)]
    inside = np.clip((radius - distance) * size + 0.5, 0, 1)[..., None]  # a soft edge, one pixel wide
    color, ground, shade = rng.uniform(0, 1, (3, count, 1, 1, 3)).astype(np.float32)
    slope = rows[..., None] * shade + columns[..., None] * (1 - shade)
    pictures = inside * color + (1 - inside) * ground * (0.5 + 0.5 * slope)
    noise = rng.normal(0, 0.02, pictures.shape).astype(np.float32)
    return np.clip(pictures + noise, 0, 1).astype(np.float32)


def two_views(rng: np.random.Generator, pictures: np.ndarray) -> np.ndarray:
    """Two distorted copies of each picture: shifted, mirrored, brightened, noisy.

    Args:
        rng: source of randomness.
        pictures: float32 [B, H, W, 3].

    Returns:
        [2, B, H, W, 3]; both views of a picture show the same thing.
    """
    views = np.stack([pictures, pictures])
    flat = views.reshape(-1, *pictures.shape[1:])
    reach = max(1, pictures.shape[1] // 8)
    for i, (down, right) in enumerate(rng.integers(-reach, reach + 1, (len(flat), 2))):
        flat[i] = np.roll(flat[i], (down, right), axis=(0, 1))
    mirrored = rng.random(len(flat)) < 0.5
    flat[mirrored] = flat[mirrored, :, ::-1]
    gain = rng.uniform(0.8, 1.2, (len(flat), 1, 1, 3)).astype(np.float32)
    noise = rng.normal(0, 0.05, flat.shape).astype(np.float32)
    return (flat * gain + noise).reshape(views.shape).astype(np.float32)
