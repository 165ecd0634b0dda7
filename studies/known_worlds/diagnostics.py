"""What can be seen of an encoder's density without the truth, and how far it is from it with the truth."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.analysis.metrics import auroc
from jepa_jax.studies.correlations import correlation, rank_correlation
from jepa_jax.training.objectives import sigreg

RANDOM_FEATURES = 256
RESAMPLES = 500


def two_sample(z: np.ndarray, seed: int = 0) -> float:
    """AUROC of a logistic regression between embeddings [N, K] and N(0, I), on the half it was not fitted on."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((z.shape[1], RANDOM_FEATURES)) / np.sqrt(z.shape[1])
    shifts = rng.uniform(-1.5, 1.5, RANDOM_FEATURES)

    def features(points: np.ndarray) -> np.ndarray:
        norm = np.linalg.norm(points, axis=1, keepdims=True)
        return np.concatenate([points, points**2, norm, np.maximum(points @ directions - shifts, 0)], axis=1)

    normal = rng.standard_normal(z.shape)
    half = len(z) // 2
    fitted = np.concatenate([features(z[:half]), features(normal[:half])])
    scale = StandardScaler().fit(fitted)
    labels = np.r_[np.ones(half), np.zeros(half)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: what it reached is what is judged
        model = LogisticRegression(C=0.01, max_iter=200).fit(scale.transform(fitted), labels)
    theirs, ours = (model.decision_function(scale.transform(features(p[half:]))) for p in (z, normal))
    return auroc(theirs, ours)


def blind(z: np.ndarray, signs: np.ndarray) -> dict[str, float]:
    """The protocol's diagnostics, of embeddings [N, K] and signs of det J [M]."""
    positive = float(np.mean(signs > 0))
    return {
        "c2st": two_sample(z),
        "folding": min(positive, 1 - positive),
        "sigreg": float(sigreg(jnp.asarray(z), jax.random.key(0), 512)),
    }


def against_truth(estimate: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Slope, offset, R^2, Spearman and the relative error of an estimate [B], with bootstrap intervals."""

    def figures(rows: np.ndarray) -> list[float]:
        e, t = estimate[rows], truth[rows]
        slope = float(np.polyfit(t, e, 1)[0])
        return [slope, float(np.mean(e - t)), correlation(e, t) ** 2, float(np.std(e - t) / np.std(t))]

    names = ("slope", "offset", "r2", "error")
    rng = np.random.default_rng(0)
    draws = [figures(rng.integers(len(truth), size=len(truth))) for _ in range(RESAMPLES)]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    found: dict[str, Any] = dict(zip(names, figures(np.arange(len(truth))), strict=True))
    found["spearman"] = rank_correlation(estimate, truth)
    found["intervals"] = {n: [float(a), float(b)] for n, a, b in zip(names, low, high, strict=True)}
    return found


def verdict(found: dict[str, Any], spread: float) -> str:
    """``estimates``, ``breaks`` or ``between``, by the protocol's thresholds; spread: of log p, nats."""
    slope, r2 = found["slope"], found["r2"]
    if 0.9 <= slope <= 1.1 and r2 >= 0.9 and abs(found["offset"]) <= 0.5 * spread:
        return "estimates"
    return "breaks" if r2 < 0.8 or not 0.7 <= slope <= 1.3 else "between"
