"""Scoring any number of images in steps of one size, as a job does, but in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.jobs.devices import default_batch_size
from jepa_jax.numerics.batches import cut, filled
from jepa_jax.scoring.readings import ScoreResult
from jepa_jax.scoring.scorer import Scorer


def score_steps(encoder: Encoder, inputs: Iterable[np.ndarray], **options: Any) -> ScoreResult:
    """Score preprocessed images one step after another, however many they are.

    The last step is filled up with copies: one program is compiled, and memory holds the inputs of one step.

    Args:
        encoder: scores them.
        inputs: preprocessed images [H, W, 3], one at least, read as they are needed.
        options: of `jepa_jax.score`, such as ``precision``.

    Returns:
        Of all images, as NumPy arrays.
    """
    scorer, size, remaining = Scorer(encoder, **options), default_batch_size(encoder.spec), iter(inputs)
    results = []
    while some := list(itertools.islice(remaining, size)):
        result = scorer(filled(np.stack(some), size))
        results.append(cut(jax.device_get(result), len(some)))
    if not results:
        raise ArgumentError("inputs holds no image to score.")
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)
