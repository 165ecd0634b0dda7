"""One number per spectrum: other ways to read the Jacobian than its log-volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TAIL_SHARE = 0.8
"""Share of the smallest singular values that the tail-weighted score sums."""

TINY = np.finfo(np.float32).tiny


def tail_score(singular_values: np.ndarray) -> np.ndarray:
    """Sum of the logs of the smallest 80% of the singular values, nats.

    The largest values vary most with contrast and least with the set: leaving out the top fifth raised a published
    AUROC (DINOv2-S, CIFAR-10 against SVHN) from .841 to .864.

    Args:
        singular_values: [N, L], descending, structural nulls left out.
    """
    kept = singular_values[:, round((1 - TAIL_SHARE) * singular_values.shape[1]) :]
    return np.log(np.maximum(kept.astype(np.float64), TINY)).sum(axis=1)


def effective_rank(singular_values: np.ndarray) -> np.ndarray:
    """exp of the entropy of the normalised singular values: between 1 and L (Roy and Vetterli, 2007)."""
    values = np.maximum(singular_values.astype(np.float64), TINY)
    share = values / values.sum(axis=1, keepdims=True)
    return np.exp(-(share * np.log(share)).sum(axis=1))


def frobenius_norm(singular_values: np.ndarray) -> np.ndarray:
    """Root of the sum of squares: how far the embedding moves for a random small change of the image."""
    return np.sqrt((singular_values.astype(np.float64) ** 2).sum(axis=1))


SPECTRAL_STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tail_score": tail_score,
    "effective_rank": effective_rank,
    "frobenius_norm": frobenius_norm,
}
"""Each takes structural singular values [N, L] to [N]; higher is taken to mean more typical, as for the score."""
