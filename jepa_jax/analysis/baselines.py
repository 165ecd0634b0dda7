"""Classic outlier detectors on embeddings and spectra, fitted on a `ReferenceSplit` and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jepa_jax.analysis.reference import ReferenceSplit
from jepa_jax.analysis.statistics import TINY
from jepa_jax.errors import ArgumentError
from jepa_jax.scored.table import ScoreTable

Features = Literal["embedding", "singular_values"]
Judge = Callable[[np.ndarray], np.ndarray]

NEIGHBOURS = 10
"""Of kNN: the distance to the tenth neighbour; fewer where the reference is small."""

LOF_NEIGHBOURS = 20
"""scikit-learn's own default."""

SMALLEST_REFERENCE = 10
"""A detector on fewer images says nothing."""


@dataclass(frozen=True)
class Detector:
    """A detector and the split that it was fitted on.

    Attributes:
        name: such as ``knn``.
        split: the reference images.
        features: what it looks at.
        judge: features [N, K] to [N], higher = more typical.
    """

    name: str
    split: ReferenceSplit
    features: Features
    judge: Judge

    def score(self, table: ScoreTable) -> np.ndarray:
        """[N], higher = more typical.

        Raises:
            ArgumentError: the table shares an image with the reference.
        """
        self.split.require_disjoint(table)
        return self.judge(_features(table, self.features))

    def require(self, table: ScoreTable) -> None:
        """Refuse a table that lacks what is looked at.

        Raises:
            ArgumentError: it does.
        """
        _features(table, self.features)


def fit(name: str, split: ReferenceSplit) -> Detector:
    """Fit a detector of `DETECTORS` on a reference split.

    Raises:
        ArgumentError: the name is unknown, the reference is too small, or its table lacks the features.
    """
    if name not in DETECTORS:
        raise ArgumentError(f"detector {name!r} is unknown; use one of {', '.join(DETECTORS)}.")
    if len(split) < SMALLEST_REFERENCE:
        raise ArgumentError(f"the reference has {len(split)} images; detectors need {SMALLEST_REFERENCE} at least.")
    features, make = DETECTORS[name]
    return Detector(name, split, features, make(_features(split.table, features)))


def _features(table: ScoreTable, features: Features) -> np.ndarray:
    if features == "embedding":
        if table.embedding is None:
            raise ArgumentError(f"{table.name!r} has no embedding; score with --save embedding.")
        return table.embedding.astype(np.float64)
    spectrum = table.structural_spectrum
    if spectrum is None:
        raise ArgumentError(f"{table.name!r} has no singular values; score with --save singular_values.")
    return np.log(np.maximum(spectrum.astype(np.float64), TINY))


def _knn(reference: np.ndarray) -> Judge:
    """Distance to the k-th neighbour between embeddings of length one (Sun et al. 2022), negated."""
    distance = _neighbour_distance(_unit(reference))
    return lambda features: -distance(_unit(features))


def _spectral_knn(reference: np.ndarray) -> Judge:
    """Distance to the k-th neighbour between log-spectra, each value standardised over the reference, negated."""
    mean, spread = reference.mean(axis=0), np.maximum(reference.std(axis=0), 1e-12)
    distance = _neighbour_distance((reference - mean) / spread)
    return lambda features: -distance((features - mean) / spread)


def _mahalanobis(reference: np.ndarray) -> Judge:
    """Squared Mahalanobis distance to one Gaussian, negated; covariance shrunk (Ledoit-Wolf): K may exceed N."""
    from sklearn.covariance import LedoitWolf

    model = LedoitWolf().fit(reference)
    return lambda features: -model.mahalanobis(features)


def _lof(reference: np.ndarray) -> Judge:
    from sklearn.neighbors import LocalOutlierFactor

    neighbours = min(LOF_NEIGHBOURS, len(reference) - 1)
    return LocalOutlierFactor(n_neighbors=neighbours, novelty=True).fit(reference).score_samples


def _isolation_forest(reference: np.ndarray) -> Judge:
    from sklearn.ensemble import IsolationForest

    return IsolationForest(random_state=0).fit(reference).score_samples


def _neighbour_distance(reference: np.ndarray) -> Judge:
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(reference))).fit(reference)
    return lambda features: model.kneighbors(features)[0][:, -1]


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


DETECTORS: dict[str, tuple[Features, Callable[[np.ndarray], Judge]]] = {
    "knn": ("embedding", _knn),
    "mahalanobis": ("embedding", _mahalanobis),
    "lof": ("embedding", _lof),
    "isolation_forest": ("embedding", _isolation_forest),
    "spectral_knn": ("singular_values", _spectral_knn),
}
"""What each looks at, and how it is fitted; adding one is one function and one line here."""
