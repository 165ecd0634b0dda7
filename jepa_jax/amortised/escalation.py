"""Which images must be scored exactly, so that few of an exact tail are missed: a promise, and where it ends.

The tail T holds the exact scores between two quantiles a and b of the images, q = b - a of them. An image is escalated
when its prediction lies within a margin c of the tail. The least margin that misses the tail too often, c*, misses an
image with probability q (1 - r), r the recall that is asked for. Of n calibration images it misses at most k with
probability

    P(Binomial(n, q (1 - r)) <= k),

so a margin that misses k of them is wide enough, up to that probability (a binomial test of one quantile; Angelopoulos
et al. 2021 call it learning and testing). Which calibration images belong to T is not known exactly, since the
quantiles are those of all images: ranks that hold T with high confidence are taken for it, which can only widen the
margin.

It takes -log(1 - confidence) / (q (1 - r)) images: 6,400 to promise 95% of the lowest 1% at 95% confidence, 650 of the
lowest 10%. Nothing that knows no distribution does with fewer. With fewer the margin is the one at which the recall is
expected to be met, by the calibration's residuals, each scaled to each image, for a tail that reaches as far as the
confidence has it; that is an estimate, and said to be one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from jepa_jax.errors import ArgumentError

RANKS = 0.2
"""Share of the risk that is spent on which calibration images belong to the tail."""


@dataclass(frozen=True)
class Calibration:
    """Images that were scored exactly, and had no part in fitting.

    Attributes:
        exact: [n] scores.
        predicted: [n].
        scale: [n], of each one's residual; see `jepa_jax.amortised.intervals.LocalScale`.
        elsewhere: [m] exact scores of other images drawn alike, those of the fit.
    """

    exact: np.ndarray
    predicted: np.ndarray
    scale: np.ndarray
    elsewhere: np.ndarray


@dataclass(frozen=True)
class Escalation:
    """What must be scored exactly.

    Attributes:
        between: the tail's two quantiles; (0, 0.01) is the lowest 1%.
        recall: that was asked for.
        confidence: with which.
        promised: whether the calibration sample suffices to promise it; if not, the margin is one at which
            the recall is expected to be met.
        edges: lowest and highest prediction that is escalated, nats; infinite at an end.
        share: of the images that is escalated, of the calibration sample or of those that were asked about.
        expected_recall: by the calibration's scaled residuals: an estimate.
        calibration_needed: images of calibration that the promise takes.
    """

    between: tuple[float, float]
    recall: float
    confidence: float
    promised: bool
    edges: tuple[float, float]
    share: float
    expected_recall: float
    calibration_needed: int

    def rows(self, predicted: np.ndarray) -> np.ndarray:
        """Which predictions [B] are escalated: bool [B]; those that are NaN are."""
        return ~((predicted < self.edges[0]) | (predicted > self.edges[1]))

    def of(self, predicted: np.ndarray) -> Escalation:
        """The same rule, with the share that it is of these predictions [B]."""
        return dataclasses.replace(self, share=float(np.mean(self.rows(predicted))))


def escalation(
    sample: Calibration, between: tuple[float, float], recall: float = 0.95, confidence: float = 0.95
) -> Escalation:
    """The least that must be scored exactly for a recall of a tail.

    Args:
        sample: calibrates.
        between: quantiles of the exact scores: (0, q) for the lowest, (1 - q, 1) for the highest.
        recall: of the tail among all images drawn like the sample.
        confidence: over the draw of the sample.

    Raises:
        ArgumentError: a value is invalid.
    """
    check_tail(between)
    for name, value in (("recall", recall), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ArgumentError(f"{name}={value} must lie between 0 and 1; 1 takes every image's exact score.")
    margins = _margins(sample, between, sample.predicted)
    risk, missed = (1 - RANKS) * (1 - confidence), (between[1] - between[0]) * (1 - recall)
    allowed = _allowed_misses(len(margins), missed, risk)
    if allowed is None:
        margin = _expected_margin(sample, between, recall, confidence, margins)
    else:
        inside = np.sort(margins[_surely_holds_tail(sample, between, RANKS * (1 - confidence))])
        margin = float(inside[max(len(inside) - 1 - allowed, 0)])
    low, high = _tail_edges(sample, between)
    return Escalation(
        between,
        recall,
        confidence,
        allowed is not None,
        (low - margin, high + margin),
        float(np.mean(margins <= margin)),
        _expected_recall(sample, between, margins <= margin),
        math.ceil(math.log(risk) / math.log1p(-missed)),
    )


def recall_bound(
    sample: Calibration, between: tuple[float, float], rows: np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
    """What a rule of escalation finds of a tail: the recall that can be promised, and the one that is expected.

    Args:
        sample: calibrates.
        between: the tail's quantiles.
        rows: which calibration images the rule would escalate, bool [n]; by their predictions alone.
        confidence: of the first (Clopper and Pearson 1934). Small samples promise nothing: 0.
    """
    from scipy.stats import beta

    check_tail(between)
    risk = 1 - confidence
    misses = int(np.sum(_surely_holds_tail(sample, between, RANKS * risk) & ~rows))
    missed = float(beta.ppf(1 - (1 - RANKS) * risk, misses + 1, max(len(rows) - misses, 1)))
    promised = max(0.0, 1 - missed / (between[1] - between[0]))
    return promised, _expected_recall(sample, between, rows)


def check_tail(between: tuple[float, float]) -> None:
    """Raise ArgumentError where a pair of quantiles is none."""
    if not 0 <= between[0] < between[1] <= 1 or between == (0, 1):
        raise ArgumentError(
            f"between={between} must be two quantiles, 0 <= low < high <= 1, and not all: (0, 0.01) for the lowest 1%."
        )


def _tail_edges(sample: Calibration, between: tuple[float, float]) -> tuple[float, float]:
    """The tail's exact scores, by images that are not of the calibration; infinite at an end."""
    low, high = between
    return (
        -math.inf if low <= 0 else float(np.quantile(sample.elsewhere, low)),
        math.inf if high >= 1 else float(np.quantile(sample.elsewhere, high)),
    )


def _margins(sample: Calibration, between: tuple[float, float], predicted: np.ndarray) -> np.ndarray:
    """How far predictions lie outside the tail; negative within it."""
    low, high = _tail_edges(sample, between)
    return np.maximum(low - predicted, predicted - high)


def _allowed_misses(count: int, missed: float, risk: float) -> int | None:
    """The largest k with P(Binomial(count, missed) <= k) <= risk; None where there is none."""
    from scipy.stats import binom

    if binom.cdf(0, count, missed) > risk:
        return None
    return int(binom.ppf(risk, count, missed)) - int(binom.cdf(binom.ppf(risk, count, missed), count, missed) > risk)


def _surely_holds_tail(sample: Calibration, between: tuple[float, float], risk: float) -> np.ndarray:
    """Calibration images among which all of the tail are, but with a probability of ``risk``: bool [n]."""
    from scipy.stats import binom

    count = len(sample.exact)
    ends = int(between[0] > 0) + int(between[1] < 1)
    first = int(binom.ppf(risk / ends, count, between[0])) if between[0] > 0 else 0
    last = int(binom.ppf(1 - risk / ends, count, between[1])) if between[1] < 1 else count
    ranks = np.argsort(np.argsort(sample.exact))
    return (ranks >= first) & (ranks < max(last, first + 1))


def _chances(sample: Calibration, between: tuple[float, float], risk: float = 0.5) -> np.ndarray:
    """Of each calibration image, that its exact score is of the tail, had it the scaled residual of any other: [n].

    The tail reaches as far as it does but with a probability of ``risk`` at each end.
    """
    from scipy.stats import binom

    everything = np.sort(np.concatenate([sample.exact, sample.elsewhere]))
    count = len(everything)
    low, high = -math.inf, math.inf
    if between[0] > 0:
        low = everything[max(int(binom.ppf(risk, count, between[0])) - 1, 0)]
    if between[1] < 1:
        high = everything[min(int(binom.ppf(1 - risk, count, between[1])), count - 1)]
    residuals = np.sort((sample.exact - sample.predicted) / sample.scale)
    upto = np.searchsorted(residuals, (high - sample.predicted) / sample.scale, side="right")
    below = np.searchsorted(residuals, (low - sample.predicted) / sample.scale, side="left")
    return (upto - below) / len(residuals)


def _expected_recall(sample: Calibration, between: tuple[float, float], rows: np.ndarray) -> float:
    chances = _chances(sample, between)
    return float(np.sum(chances[rows]) / np.sum(chances)) if np.any(chances) else 0.0


def _expected_margin(
    sample: Calibration, between: tuple[float, float], recall: float, confidence: float, margins: np.ndarray
) -> float:
    order = np.argsort(margins, kind="stable")
    chances = _chances(sample, between, 1 - confidence)[order]
    if not np.any(chances):
        return float(margins[order[-1]])
    found = np.cumsum(chances) / np.sum(chances)
    return float(margins[order[min(int(np.searchsorted(found, recall)), len(order) - 1)]])
