"""Ridge regression from standardised features to the exact score; its penalty by leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PENALTIES = np.logspace(-2, 6, 17)
"""Tried; features are standardised, so they are of the order of the number of images and below."""


@dataclass(frozen=True)
class Standard:
    """Features with mean 0 and standard deviation 1 over the images that it was fitted on.

    Attributes:
        mean: float64 [F].
        deviation: float64 [F]; 1 where a feature is constant.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """[B, F] -> float64 [B, F]."""
        return (features.astype(np.float64) - self.mean) / self.deviation


@dataclass(frozen=True)
class Ridge:
    """score = weights . standardised features + intercept.

    Attributes:
        weights: float64 [F].
        intercept: float64 [].
        penalty: float64 [], of `PENALTIES`.
    """

    weights: np.ndarray
    intercept: np.ndarray
    penalty: np.ndarray

    def __call__(self, standardised: np.ndarray) -> np.ndarray:
        """[B, F] -> [B], nats."""
        return standardised @ self.weights + self.intercept


def fit_standard(features: np.ndarray) -> Standard:
    """Standardise by these features [B, F]."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.astype(np.float64))
    return Standard(np.asarray(scaler.mean_), np.asarray(scaler.scale_))


def fit_ridge(standardised: np.ndarray, scores: np.ndarray) -> tuple[Ridge, np.ndarray]:
    """Fit, and how far off each image would be if it had been left out.

    Args:
        standardised: [n, F].
        scores: [n], exact.

    Returns:
        The ridge, and |leave-one-out residual| [n].
    """
    from sklearn.linear_model import RidgeCV

    found = RidgeCV(alphas=PENALTIES, store_cv_results=True).fit(standardised, scores)
    chosen = int(np.flatnonzero(found.alpha_ == PENALTIES)[0])
    ridge = Ridge(np.asarray(found.coef_), np.asarray(found.intercept_), np.asarray(found.alpha_))
    return ridge, np.sqrt(found.cv_results_[:, chosen])
