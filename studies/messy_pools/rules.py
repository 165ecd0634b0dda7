"""A number per image by every rule, higher = keep; what is fitted is fitted on the other half of the pool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jepa_jax.amortised import fit_amortised
from jepa_jax.analysis.baselines import DETECTORS
from jepa_jax.analysis.complexity import bits_per_pixel
from jepa_jax.analysis.dual import DUAL_TESTS, coordinates, fit_points
from jepa_jax.analysis.statistics import effective_rank, tail_score
from jepa_jax.encoders import Encoder
from jepa_jax.scoring.batches import score_steps
from jepa_jax.training.whitening import standardized

EXACT_SHARE = 0.4
CHEAP = ("knn", "mahalanobis", "isolation_forest", "jpeg_small_first", "jpeg_large_first")
"""Rules that need no Jacobian."""


@dataclass(frozen=True)
class Readings:
    """Of every image by one encoder: ``score``, ``gaussian_score`` [N], ``singular_values``, ``embedding`` [N, K]."""

    score: np.ndarray
    gaussian_score: np.ndarray
    singular_values: np.ndarray
    embedding: np.ndarray


def readings(encoder: Encoder, images: np.ndarray, path: Path, chunk: int = 300) -> Readings:
    """Scores of uint8 images [N, 32, 32, 3], kept in files of ``chunk`` images each."""
    names = ("score", "gaussian_score", "singular_values", "embedding")
    path.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(images), chunk):
        file = path / f"{start:06d}.npz"
        if not file.exists():
            result = score_steps(encoder, standardized(encoder, images[start : start + chunk]))
            part = file.with_suffix(".part")
            with part.open("wb") as opened:
                arrays: Any = {name: np.asarray(getattr(result, name)) for name in names}
                np.savez(opened, **arrays)
            part.rename(file)
        with np.load(file) as arrays:
            parts.append({name: arrays[name] for name in names})
    return Readings(**{name: np.concatenate([part[name] for part in parts]) for name in names})


def judge(encoder: Encoder, found: Readings, images: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Every rule's number of every image, [N] each."""
    rng = np.random.default_rng(seed)
    halves = np.array_split(rng.permutation(len(images)), 2)
    rules = {
        "score": found.score,
        "gaussian_score": found.gaussian_score,
        "effective_rank": effective_rank(found.singular_values),
        "tail_score": tail_score(found.singular_values),
        "chance": rng.random(len(images)),
    }
    points = coordinates(found.score, found.singular_values)
    unit = found.embedding.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for name in (*DUAL_TESTS, "knn", "mahalanobis", "isolation_forest"):
        values = np.empty(len(images))
        for judged, fitted in (halves, halves[::-1]):
            if name in DUAL_TESTS:
                values[judged] = -DUAL_TESTS[name](points[judged], fit_points(points[fitted]))
            else:
                values[judged] = DETECTORS[name][1](unit[fitted])(unit[judged])
        rules[name] = values
    bits = np.array([bits_per_pixel(Image.fromarray(image)) for image in images])
    rules |= {"jpeg_small_first": bits, "jpeg_large_first": -bits}
    exact = rng.permutation(len(images))[: round(EXACT_SHARE * len(images))]
    inputs = standardized(encoder, images)
    head = fit_amortised(encoder, inputs[exact], found.score[exact])
    return rules | {"amortised": head.predict(inputs).score}
