"""How good embeddings are: probes of what they tell, and measures of how they fill their space."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jepa_jax.training.objectives import effective_rank

RIDGE = 10.0
NEIGHBOURS = 20


@dataclass(frozen=True)
class Split:
    """Embeddings [N, K] and their labels [N]."""

    embeddings: np.ndarray
    labels: np.ndarray


def linear_probe(train: Split, test: Split) -> float:
    """Accuracy of a ridge regression on one-hot labels, fitted to standardised training embeddings."""
    mean, std = train.embeddings.mean(axis=0), train.embeddings.std(axis=0) + 1e-8
    x, y = (_with_constant((split.embeddings - mean) / std) for split in (train, test))
    classes = np.unique(train.labels)
    targets = (train.labels[:, None] == classes).astype(x.dtype)
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1], dtype=x.dtype), x.T @ targets)
    return float(np.mean(classes[np.argmax(y @ weights, axis=1)] == test.labels))


def _with_constant(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)


def nearest_neighbours(train: Split, test: Split, count: int = NEIGHBOURS) -> float:
    """Accuracy of a vote among the most similar training embeddings by cosine."""
    x, y = (split.embeddings / np.linalg.norm(split.embeddings, axis=1, keepdims=True) for split in (train, test))
    right = 0
    for begin in range(0, len(y), 1000):
        nearest = np.argpartition(-(y[begin : begin + 1000] @ x.T), count, axis=1)[:, :count]
        votes = train.labels[nearest]
        winners = [np.bincount(row).argmax() for row in votes]
        right += int(np.sum(winners == test.labels[begin : begin + 1000]))
    return right / len(y)


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
        "effective_rank": float(effective_rank(jnp.asarray(embeddings))),
        "smallest_std": float(std.min()),
        "largest_std": float(std.max()),
        "dead_dimensions": int(np.sum(std < 0.01 * std.max())),
        "largest_mean": float(np.abs(mean).max()),
        "excess_kurtosis": float(np.mean(standard**4) - 3),
        "mean_squared_norm_by_K": float(np.mean(np.sum(embeddings**2, axis=1)) / embeddings.shape[1]),
    }
