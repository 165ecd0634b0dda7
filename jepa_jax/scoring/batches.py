"""Batches of one size: how large, and any number of images scored in them, in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jepa_jax.encoders import Encoder, EncoderFunction, EncoderSpec
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.options import JacobianOptions, default_images_per_step
from jepa_jax.numerics.batches import cut, filled
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.scoring.concurrency import concurrency_of
from jepa_jax.scoring.memory import images_to_fill
from jepa_jax.scoring.readings import ScoreResult
from jepa_jax.scoring.scorer import Scorer

LARGEST_BATCH = 64
"""Images in a step on a CPU, if nothing is said, at most."""


def default_batch_size(spec: EncoderSpec, devices: Sequence[Any] | None = None) -> int:
    """Images that devices, by default all local ones, may compute at the same time; more in one call gains nothing."""
    devices = devices or jax.local_devices()
    platform = platform_of(devices)
    if platform == "cpu":
        side_by_side = min(LARGEST_BATCH, default_images_per_step(math.prod(spec.input_shape), spec.embedding_size))
        return max(side_by_side, concurrency_of(LARGEST_BATCH, platform))
    function, options = EncoderFunction(spec.vit, spec.gaussian_embedding), JacobianOptions(platform=platform)
    return len(devices) * images_to_fill(function, options, spec.input_shape, spec.embedding_size)


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
