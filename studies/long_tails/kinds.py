"""Kinds of pictures with known frequencies: what an encoder of the pool, and one of the reference, is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_jax.studies.controlled import (
    IMAGES_PER_CLASS,
    LONG_TAIL,
    PICTURES_PER_COMBINATION,
    TRAINING_PICTURES,
    world_figures,
)
from jepa_jax.studies.correlations import rank_correlation
from jepa_jax.studies.image_world import SIZE, draw, world
from jepa_jax.training.data import load_labelled_images

STANDARD = 500
"""Pictures drawn as the pool is, on which the dual test is fitted."""


@dataclass(frozen=True)
class Kinds:
    """One of the protocol's worlds; pictures are uint8 [N, S, S, 3].

    Attributes:
        name: of it.
        size: S.
        count: C, of kinds.
        training: of a seed, the pool's pictures, and the reference's.
        judged: of a seed, as many pictures of each kind, kind by kind.
        standard: of a seed, other pictures drawn as the pool is.
        figures: of a seed and the kinds' means [C].
    """

    name: str
    size: int
    count: int
    training: Callable[[int], dict[str, np.ndarray]]
    judged: Callable[[int], np.ndarray]
    standard: Callable[[int], np.ndarray]
    figures: Callable[[int, np.ndarray], dict[str, float]]


def combinations() -> Kinds:
    """The image world; its reference shows all combinations alike, those too that the pool never shows."""
    truth = world()
    alike = np.full(len(truth.frequencies), 1 / len(truth.frequencies))

    def drawn(seed: int, frequencies: np.ndarray, count: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return draw(rng, truth.combinations[rng.choice(len(frequencies), count, p=frequencies)])

    def training(seed: int) -> dict[str, np.ndarray]:
        shown = {"pool": truth.frequencies, "reference": alike}
        return {name: drawn(seed, frequencies, TRAINING_PICTURES) for name, frequencies in shown.items()}

    def judged(seed: int) -> np.ndarray:
        return draw(np.random.default_rng((seed, 1)), np.repeat(truth.combinations, PICTURES_PER_COMBINATION, axis=0))

    def figures(seed: int, means: np.ndarray) -> dict[str, float]:
        found = world_figures(truth, means)
        return {"frequency": found["combinations"], "unseen": found["never seen"]}

    def standard(seed: int) -> np.ndarray:
        return drawn(1000 + seed, truth.frequencies, STANDARD)

    return Kinds("combinations", SIZE, len(truth.frequencies), training, judged, standard, figures)


def classes(cifar10: Path) -> Kinds:
    """CIFAR-10 with a long tail over its classes; its reference has as many pictures, classes alike."""
    data = load_labelled_images(cifar10)

    def frequencies(seed: int) -> np.ndarray:
        return LONG_TAIL ** np.random.default_rng(seed).permutation(10).astype(float)

    def first(labels: np.ndarray, counts: np.ndarray, skipped: int = 0) -> np.ndarray:
        rows = [np.flatnonzero(labels == c)[skipped : skipped + count] for c, count in enumerate(counts)]
        return np.concatenate(rows)

    def training(seed: int) -> dict[str, np.ndarray]:
        largest = np.bincount(data.train_labels, minlength=10).min()
        counts = (largest * frequencies(seed)).astype(int)
        alike = np.full(10, counts.sum() // 10)
        return {
            "pool": data.train[first(data.train_labels, counts)],
            "reference": data.train[first(data.train_labels, alike)],
        }

    def judged(seed: int) -> np.ndarray:
        return data.test[first(data.test_labels, np.full(10, IMAGES_PER_CLASS))]

    def standard(seed: int) -> np.ndarray:
        shares = frequencies(seed) / frequencies(seed).sum()
        return data.test[first(data.test_labels, np.rint(STANDARD * shares).astype(int), IMAGES_PER_CLASS)]

    def figures(seed: int, means: np.ndarray) -> dict[str, float]:
        return {"frequency": rank_correlation(means, np.log(frequencies(seed)))}

    return Kinds("classes", 32, 10, training, judged, standard, figures)
