"""How good embeddings are: probes of what they tell, and measures of how they fill their space."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jepa_jax.training.objectives import embedding_rank

PROBE_ITERATIONS = 1000
NEIGHBOURS = 20


@dataclass(frozen=True)
class Split:
    """Embeddings [N, K] and their labels [N]."""

    embeddings: np.ndarray
    labels: np.ndarray


def linear_probe(train: Split, test: Split) -> float:
    """Accuracy of a logistic regression fitted to standardised training embeddings: the usual linear evaluation."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=PROBE_ITERATIONS))
    probe.fit(train.embeddings, train.labels)
    return float(probe.score(test.embeddings, test.labels))


def nearest_neighbours(train: Split, test: Split, count: int = NEIGHBOURS) -> float:
    """Accuracy of a vote among the most similar training embeddings by cosine."""
    voters = KNeighborsClassifier(count, metric="cosine").fit(train.embeddings, train.labels)
    return float(voters.score(test.embeddings, test.labels))


def spread(embeddings: np.ndarray) -> dict[str, float]:
    """How embeddings [B, K] fill their space, and how near they are to N(0, I).

    Returns:
        ``effective_rank`` (of K); ``smallest_std`` and ``largest_std`` over dimensions; ``dead_dimensions``, whose
        std is below 1% of the largest; ``largest_mean`` in absolute value; ``excess_kurtosis``, its mean over
        dimensions (0 for a Gaussian); ``mean_squared_norm_by_K`` (1 for N(0, I)).
    """
    std, mean = embeddings.std(axis=0), embeddings.mean(axis=0)
    standard = (embeddings - mean) / np.maximum(std, 1e-12)
    return {
        "effective_rank": float(embedding_rank(jnp.asarray(embeddings))),
        "smallest_std": float(std.min()),
        "largest_std": float(std.max()),
        "dead_dimensions": int(np.sum(std < 0.01 * std.max())),
        "largest_mean": float(np.abs(mean).max()),
        "excess_kurtosis": float(np.mean(standard**4) - 3),
        "mean_squared_norm_by_K": float(np.mean(np.sum(embeddings**2, axis=1)) / embeddings.shape[1]),
    }
