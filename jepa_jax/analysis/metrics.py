"""How well a statistic separates two sets: AUROC, AUPR, FPR at 95% TPR, with bootstrap intervals.

One sign throughout: the in-set is the positive class and a higher value means more typical. AUROC is the
probability that an image of the in-set has a higher value than one of the out-set; under 0.5 the sign is inverted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jepa_jax.errors import ArgumentError

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95")

LEVEL = 0.95
"""Of the bootstrap intervals."""


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Separation:
    """How a statistic separates an in-set from an out-set.

    Attributes:
        auroc: area under the ROC curve.
        aupr_in: average precision with the in-set as the positive class; chance is its share of the images.
        aupr_out: average precision of the negated statistic with the out-set as the positive class.
        fpr95: share of the out-set that passes a threshold which 95% of the in-set pass.
        count_in, count_out: number of images.
        gain: AUROC minus that of the base statistic on the same images, resampled together; None for the base.
    """

    auroc: Interval
    aupr_in: Interval
    aupr_out: Interval
    fpr95: Interval
    count_in: int
    count_out: int
    gain: Interval | None = None

    @property
    def inverted(self) -> bool:
        """Whether the out-set has the higher values, beyond the bootstrap's doubt."""
        return self.auroc.high < 0.5


def separations(
    values_in: Mapping[str, np.ndarray],
    values_out: Mapping[str, np.ndarray],
    *,
    base: str = "score",
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Separation]:
    """Judge several statistics of the same images.

    Point values are scikit-learn's. Intervals are percentiles over a stratified bootstrap of the images; what a
    statistic was fitted on is held fixed.

    Args:
        values_in: [N] of the in-set, by statistic.
        values_out: [M] of the out-set, by statistic.
        base: the statistic that the others' gain is measured against.
        resamples: of the bootstrap; the same images are drawn for every statistic.
        seed: of the bootstrap.

    Raises:
        ArgumentError: a set is empty, or a value is not finite.
    """
    points = {name: _point_values(name, values, values_out[name]) for name, values in values_in.items()}
    draws = {name: bootstrap(values, values_out[name], resamples, seed) for name, values in values_in.items()}
    results = {}
    for name in values_in:
        intervals = {m: _interval(points[name][m], draws[name][:, i]) for i, m in enumerate(METRICS)}
        gain = None
        if name != base and base in points:
            difference = points[name]["auroc"] - points[base]["auroc"]
            gain = _interval(difference, draws[name][:, 0] - draws[base][:, 0])
        counts = len(values_in[name]), len(values_out[name])
        results[name] = Separation(**intervals, count_in=counts[0], count_out=counts[1], gain=gain)
    return results


def auroc(values_in: np.ndarray, values_out: np.ndarray) -> float:
    """Probability that a value of the in-set is higher than one of the out-set, ties halved."""
    from sklearn.metrics import roc_auc_score

    labels = np.concatenate([np.ones(len(values_in), int), np.zeros(len(values_out), int)])
    return float(roc_auc_score(labels, np.concatenate([values_in, values_out])))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN where one of them does not vary."""
    from scipy.stats import spearmanr

    return float(np.asarray(spearmanr(a, b))[0])


def _point_values(name: str, values_in: np.ndarray, values_out: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    for side, values in (("in-set", values_in), ("out-set", values_out)):
        if not len(values) or not np.all(np.isfinite(values)):
            bad = int(np.sum(~np.isfinite(values)))
            raise ArgumentError(f"{name} has {len(values)} values in the {side}, {bad} of them not finite.")
    values = np.concatenate([values_in, values_out])
    labels = np.concatenate([np.ones(len(values_in), int), np.zeros(len(values_out), int)])
    false_rate, true_rate, _ = metrics.roc_curve(labels, values, drop_intermediate=False)
    return {
        "auroc": auroc(values_in, values_out),
        "aupr_in": float(metrics.average_precision_score(labels, values)),
        "aupr_out": float(metrics.average_precision_score(1 - labels, -values)),
        "fpr95": float(false_rate[np.argmax(true_rate >= 0.95 - 1e-12)]),
    }


def _interval(value: float, draws: np.ndarray) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def bootstrap(values_in: np.ndarray, values_out: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Metrics of resampled sets, [resamples, 4] in the order of `METRICS`.

    The values are sorted once; a resample is a count per image, and every metric follows from cumulative counts.
    """
    values = np.concatenate([values_in, values_out])
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # the last image of each run of ties
    rng = np.random.default_rng(seed)
    draws = np.empty((resamples, len(METRICS)))
    counts = np.zeros((2, len(values)))
    for i in range(resamples):
        counts[:] = 0
        for row, start, size in ((0, 0, len(values_in)), (1, len(values_in), len(values_out))):
            counts[row, start : start + size] = np.bincount(rng.integers(size, size=size), minlength=size)
        true, false = (np.cumsum(counts[row, order])[ends] for row in (0, 1))
        draws[i] = _from_counts(true, false)
    return draws


def _from_counts(true: np.ndarray, false: np.ndarray) -> tuple[float, float, float, float]:
    """The metrics from images of either set at or above each threshold, thresholds falling."""
    positives, negatives = true[-1], false[-1]
    true_steps, false_steps = np.diff(true, prepend=0), np.diff(false, prepend=0)
    auroc = np.sum(false_steps * (true - true_steps / 2)) / (positives * negatives)
    seen = np.maximum(true + false, 1)
    aupr_in = np.sum(true_steps * true / seen) / positives
    true_below, false_below = positives - true + true_steps, negatives - false + false_steps
    aupr_out = np.sum(false_steps * false_below / np.maximum(true_below + false_below, 1)) / negatives
    fpr95 = false[np.argmax(true >= 0.95 * positives - 1e-9)] / negatives
    return float(auroc), float(aupr_in), float(aupr_out), float(fpr95)
