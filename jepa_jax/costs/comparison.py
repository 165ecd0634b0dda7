"""What each way to a score costs and loses, on a user's own images: exact at every precision, and amortised.

All ways score the same images, drawn at random, and are compared with float32's exact scores. The amortised ones are
of images that had no part in the fit: the images are cut into `FOLDS` parts, and each is predicted from the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from jepa_jax.amortised import features, fit_amortised
from jepa_jax.amortised.amortised import require_enough
from jepa_jax.costs.throughput import default_levels
from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.images.decoding import InputRecipe
from jepa_jax.images.pipeline import decode_ahead
from jepa_jax.images.sources import Records
from jepa_jax.jobs.rows.faults import Faults
from jepa_jax.numerics.batches import cut, filled
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.numerics.precision import Precision
from jepa_jax.scoring.batches import default_batch_size
from jepa_jax.scoring.scorer import Scorer

FOLDS = 5
COVERAGE = 0.9
"""Of the intervals of amortised scores."""

RAREST = 0.01
"""Share of the images that recall is of: those with the lowest exact scores, one at least."""

ESCALATED = (0.02, 0.05, 0.1)
"""Shares of the images that are taken, from the lowest scores on."""

REFERENCE: Precision = "float32"


@dataclass(frozen=True)
class Method:
    """One way to a score.

    Attributes:
        method: ``exact`` or ``amortised``.
        precision: of the Jacobian's products, or of the forward pass.
        images_per_second: without decoding.
        spearman: rank correlation with the exact scores in float32.
        median_error: absolute difference from them, nats.
        largest_error: as that.
        recall: share of the images with the lowest exact scores that are among the lowest of this way's, for each of
            `ESCALATED`.
    """

    method: str
    precision: str
    images_per_second: float
    spearman: float
    median_error: float
    largest_error: float
    recall: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """All ways, on the same images.

    Attributes:
        images: how many were scored.
        failed: how many could not be decoded.
        rarest: how many images recall is of.
        decoding: images that are decoded in a second.
        methods: a row for each.
    """

    images: int
    failed: int
    rarest: int
    decoding: float
    methods: tuple[Method, ...]


def compare_methods(
    encoder: Encoder,
    source: Records,
    images: int = 500,
    *,
    seed: int = 0,
    levels: Sequence[Precision] = (),
    workers: int = 0,
    doing: Callable[[str], None] = lambda what: None,
) -> Comparison:
    """Score images of an input by every method.

    Args:
        encoder: scores them.
        source: where they are.
        images: how many are drawn; they are held in memory.
        seed: of the draw.
        levels: of precision; by default float32 and all that the device has units for.
        workers: processes that decode.
        doing: is told what goes on.

    Raises:
        ArgumentError: there are too few to fit and to calibrate on.
        JobError: too few can be decoded.
    """
    source.require_fit(encoder.spec.preprocess, encoder.spec.name)
    count = min(images, len(source.keys))
    _require_enough(count, ArgumentError)
    doing(f"decoding {count:,} images")
    begun = time.monotonic()
    pictures = _decoded(encoder, source.some(count, seed), workers)
    decoding = len(pictures) / (time.monotonic() - begun)
    _require_enough(len(pictures), JobError)
    chosen = levels or default_levels(platform_of(jax.local_devices()))
    found: dict[str, tuple[np.ndarray, float]] = {}
    for level in dict.fromkeys((REFERENCE, *chosen)):
        doing(f"scoring exactly in {level}")
        found[level] = _exact(encoder, pictures, level)
    exact = found[REFERENCE][0]
    if not np.all(np.isfinite(exact)):
        raise JobError(f"{int(np.sum(~np.isfinite(exact)))} of {len(exact)} images have no finite score.")
    rows = [_row("exact", level, scores, exact, seconds) for level, (scores, seconds) in found.items()]
    doing("predicting from one forward pass")
    predicted, seconds = _amortised(encoder, pictures, exact)
    rows.append(_row("amortised", REFERENCE, predicted, exact, seconds))
    return Comparison(len(pictures), count - len(pictures), _rarest(len(exact)), decoding, tuple(rows))


def _require_enough(count: int, kind: type[ArgumentError | JobError]) -> None:
    """Raise where the images outside a fold are too few to fit and to calibrate on."""
    try:
        require_enough(max(0, count - -(-count // FOLDS)), coverage=COVERAGE)
    except ArgumentError as error:
        raise kind(
            f"{count} images of the input: they are too few. --images must be at least {_least()} for this coverage, "
            f"{COVERAGE:.0%}, and as many must be there and readable."
        ) from error


def _least() -> int:
    """The fewest images that `_require_enough` lets pass."""
    count = 1
    while True:
        try:
            require_enough(count - -(-count // FOLDS), coverage=COVERAGE)
        except ArgumentError:
            count += 1
        else:
            return count


def _decoded(encoder: Encoder, source: Records, workers: int) -> np.ndarray:
    recipe, faults = InputRecipe(encoder.spec.preprocess), Faults(source, "the same command works")
    records = decode_ahead(source, range(len(source.keys)), recipe, workers=workers, ahead=64)
    found = [faults.require_none(record).inputs for record in records]
    none = np.empty((0, *encoder.spec.input_shape), np.float32)
    return np.concatenate([none, *(one for one in found if one is not None)])


def _exact(encoder: Encoder, pictures: np.ndarray, level: Precision) -> tuple[np.ndarray, float]:
    """Scores, and the seconds that they took once the program was compiled."""
    scorer = Scorer(encoder, precision=level, spectrum=False)
    size = default_batch_size(encoder.spec)
    np.asarray(scorer(filled(pictures[:size], size)).score)
    begun = time.monotonic()
    batches = (pictures[start : start + size] for start in range(0, len(pictures), size))
    scores = [np.asarray(cut(scorer(filled(batch, size)).score, len(batch)), np.float64) for batch in batches]
    return np.concatenate(scores), time.monotonic() - begun


def _amortised(encoder: Encoder, pictures: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, float]:
    """Predictions of images from the others, and the seconds that their features took."""
    features(encoder, pictures[:1])  # compiles
    begun = time.monotonic()
    found = features(encoder, pictures)
    seconds = time.monotonic() - begun
    predicted = np.empty(len(pictures))
    for fold in range(FOLDS):
        out = np.arange(len(pictures)) % FOLDS == fold
        head = fit_amortised(encoder, None, exact[~out], features=found[~out])
        predicted[out] = head.predict_features(found[out]).score
    return predicted, seconds


def _rarest(count: int) -> int:
    return max(1, round(RAREST * count))


def _row(method: str, precision: str, scores: np.ndarray, exact: np.ndarray, seconds: float) -> Method:
    from scipy.stats import rankdata

    rarest = np.argsort(exact)[: _rarest(len(exact))]
    place = np.argsort(np.argsort(scores))
    recall = tuple(float(np.mean(place[rarest] < share * len(exact))) for share in ESCALATED)
    off = np.abs(scores - exact)
    spearman = float(np.corrcoef(rankdata(scores), rankdata(exact))[0, 1])
    rate = len(exact) / seconds
    return Method(method, precision, rate, spearman, float(np.median(off)), float(np.max(off)), recall)
