"""The model card's figures of detection, against scikit-learn on the same scores and embeddings."""

import numpy as np
import pytest
from scored_sets import SPEC, VIT
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import jepa_jax as jj
from jepa_jax.encoders import Encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.studies.card import detection


def test_scores_and_baselines_are_told_apart_as_scikit_learn_does():
    encoder = Encoder(SPEC, initialize_params(VIT, seed=0))
    rng = np.random.default_rng(0)
    reference, inside, noise = (rng.integers(low, 256, (20, 32, 32, 3), np.uint8) for low in (160, 150, 0))
    statistics, areas = detection(encoder, reference, inside, {"noise": noise})
    known, typical, other = (jj.score(encoder, encoder.preprocess(list(s))) for s in (reference, inside, noise))
    labels = np.repeat([1, 0], 20)

    def area(values: list[np.ndarray]) -> float:
        return float(roc_auc_score(labels, np.concatenate(values)))

    def unit(z: np.ndarray) -> np.ndarray:
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    fitted, *embeddings = (np.asarray(result.embedding) for result in (known, typical, other))
    neighbours = NearestNeighbors(n_neighbors=10).fit(unit(fitted))
    gaussian = LedoitWolf().fit(fitted)
    assert areas["noise"] == {
        "score": pytest.approx(area([np.asarray(typical.score), np.asarray(other.score)])),
        "knn": pytest.approx(area([-neighbours.kneighbors(unit(z))[0][:, -1] for z in embeddings])),
        "mahalanobis": pytest.approx(area([-gaussian.mahalanobis(z) for z in embeddings])),
    }
    assert statistics["noise"]["median"] == pytest.approx(np.median(other.score), abs=1e-4)
