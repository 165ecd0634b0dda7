"""Images unlike those that a predictor was fitted on: a distance of features, and how rare it is among familiar ones.

The distance is Mahalanobis' in the model of probabilistic PCA (Tipping and Bishop 1999): r directions have variances
of their own, and all others share what is left of the variance,

    d = sum_k c_k^2 / v_k + (|z|^2 - |c|^2) / v_rest        c = directions z, of standardised features z,

since hundreds of images do not determine a covariance of a thousand features. What it says is a conformal p-value: of
images drawn like the calibration sample, at most a share of ``rate`` is flagged, whatever their distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DIRECTIONS = 64
"""At most, and an eighth of the images."""


@dataclass(frozen=True)
class Distance:
    """See above.

    Attributes:
        directions: float64 [r, F], orthonormal.
        variances: float64 [r], descending.
        rest: float64 [], the variance of each direction across them.
    """

    directions: np.ndarray
    variances: np.ndarray
    rest: np.ndarray

    def __call__(self, standardised: np.ndarray) -> np.ndarray:
        """[B, F] -> [B]; infinite where a feature is not finite."""
        along = standardised @ self.directions.T
        across = np.maximum(np.sum(standardised**2, axis=1) - np.sum(along**2, axis=1), 0)
        found = np.sum(along**2 / self.variances, axis=1) + across / self.rest
        return np.where(np.isfinite(found), found, np.inf)


def fit_distance(standardised: np.ndarray) -> tuple[Distance, np.ndarray]:
    """Fit, and the distances of the same images as if each had been left out.

    An image of the fit lies nearer than one that is new: with d = n h, the leverage h of an image becomes h / (1 - h)
    when the image is left out of the covariance (Sherman and Morrison).

    Args:
        standardised: [n, F].

    Returns:
        The distance, and [n].
    """
    count, width = standardised.shape
    kept = max(1, min(DIRECTIONS, count // 8, width - 1))
    values, vectors = np.linalg.eigh(standardised @ standardised.T / count)  # n x n: features are often more
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    floor = max(values[0], 1e-12) * 1e-10
    variances = np.maximum(values[:kept], floor)
    directions = (vectors[:, :kept] / np.sqrt(count * variances)).T @ standardised
    rest = max(float(np.sum(values[kept:])) / max(width - kept, 1), floor)
    distance = Distance(directions, variances, np.asarray(rest))
    within = distance(standardised)
    return distance, within / np.maximum(1 - within / count, 0.1)


def familiarity(calibration: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Conformal p-values (1 + #{calibration >= d}) / (n + 1), in (0, 1]: small where an image is unfamiliar.

    Args:
        calibration: [n] distances.
        distances: [B].
    """
    ordered = np.sort(calibration)
    farther = len(ordered) - np.searchsorted(ordered, distances, side="left")
    return (1 + farther) / (len(ordered) + 1)
