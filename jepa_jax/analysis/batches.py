"""Scoring any number of images in steps of one size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from jepa_jax.encoders import Encoder
from jepa_jax.jacobian.plan import default_images_per_step
from jepa_jax.scorer import score

LARGEST_STEP = 16

VECTORS = ("score", "listing_score", "gaussian_score", "singular_values", "embedding")


def score_steps(encoder: Encoder, inputs: Iterable[np.ndarray], **options: Any) -> tuple[dict[str, np.ndarray], int]:
    """Score preprocessed images one step after another, however many they are.

    Every step has the size that the engine computes side by side, the last one filled up with copies: one program is
    compiled, memory stays bounded, and no step is split.

    Args:
        encoder: scores them.
        inputs: preprocessed images [H, W, 3], read as they are needed.
        options: of `jepa_jax.score`, such as ``precision``.

    Returns:
        What a `ScoreResult` holds, over all images, and its ``log_volume_rank``.
    """
    side = encoder.spec.image_size
    size = min(LARGEST_STEP, default_images_per_step(3 * side * side, encoder.spec.embedding_size))
    columns: dict[str, list[np.ndarray]] = {}
    rank = 0
    for some in _steps(inputs, size):
        filled = np.stack([*some, *[some[-1]] * (size - len(some))])
        result = score(encoder, filled, **options)
        rank = result.log_volume_rank
        for name in VECTORS:
            value = getattr(result, name)
            if value is not None:
                columns.setdefault(name, []).append(np.asarray(value)[: len(some)])
    return {name: np.concatenate(parts) for name, parts in columns.items()}, rank


def _steps(inputs: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    some: list[np.ndarray] = []
    for image in inputs:
        some.append(image)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
