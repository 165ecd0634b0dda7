"""Split-conformal intervals, as wide as an image's own difficulty (Lei et al. 2018, section 5.2).

    score - q s(x), score + q s(x)        q: the ceil(c (n + 1))-th smallest |residual| / s of n calibration images

For an image drawn like the calibration sample P(exact in the interval) >= c, whatever the distribution and however bad
predictor and s are, and < c + 1 / (n + 1) without ties. That is an average over images; s is what makes it hold
nearly as well in the tails, which it is measured for and not promised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SOFTENED = 0.1
"""Of the median |residual|, added before the log: residuals near zero say nothing of an image's difficulty."""


@dataclass(frozen=True)
class LocalScale:
    """log s: linear in log distance, predicted score, and its square; never below what was seen.

    Residuals grow with an image's distance from the others, and toward both ends of the scores.

    Attributes:
        mean: float64 [3], of the three.
        deviation: float64 [3].
        weights: float64 [3].
        intercept: float64 [].
        predicted: float64 [2], the least and the greatest prediction of the fit, to which others are clipped.
        least: float64 [], of log s over the fit.
    """

    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    predicted: np.ndarray
    least: np.ndarray

    def __call__(self, distances: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """[B], [B] -> s [B], nats; infinite where the distance is."""
        columns = (_columns(distances, np.clip(predicted, *self.predicted)) - self.mean) / self.deviation
        with np.errstate(over="ignore"):
            found = np.exp(np.maximum(columns @ self.weights + self.intercept, self.least))
        return np.where(np.isfinite(distances) & np.isfinite(predicted), found, np.inf)


def _columns(distances: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    known = np.where(np.isfinite(distances) & np.isfinite(predicted), distances, 1.0)
    predicted = np.where(np.isfinite(predicted), predicted, 0.0)
    return np.stack([np.log(np.maximum(known, 1e-12)), predicted, predicted**2], axis=1)


def fit_scale(distances: np.ndarray, predicted: np.ndarray, residuals: np.ndarray) -> LocalScale:
    """Fit by images' distances, predictions, and |residuals|, all [n], and each as if it had been left out."""
    from sklearn.linear_model import RidgeCV

    columns = _columns(distances, predicted)
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    softened = np.log(residuals + max(SOFTENED * float(np.median(residuals)), 1e-12))
    found = RidgeCV(alphas=np.logspace(-2, 4, 13)).fit((columns - mean) / deviation, softened)
    weights = np.asarray(found.coef_)
    seen = ((columns - mean) / deviation) @ weights + found.intercept_
    return LocalScale(
        mean,
        deviation,
        weights,
        np.asarray(found.intercept_),
        np.array([predicted.min(), predicted.max()]),
        np.asarray(seen.min()),
    )


def conformal_quantile(values: np.ndarray, coverage: float) -> float:
    """The ceil(coverage (n + 1))-th smallest of n values; infinite where there are too few."""
    rank = math.ceil(round(coverage * (len(values) + 1), 9))  # 0.9 * 10 is 9, whatever binary fractions say
    return math.inf if rank > len(values) else float(np.sort(values)[rank - 1])


def least_calibration(coverage: float) -> int:
    """How many calibration images a finite interval takes."""
    return math.ceil(round(coverage / (1 - coverage), 9))
