"""How an estimate follows the truth."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def correlation(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's r; 0 where the estimate does not vary."""
    return float(np.corrcoef(estimate, truth)[0, 1]) if np.ptp(estimate) > 0 else 0.0


def rank_correlation(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's rho; 0 where the estimate does not vary."""
    return correlation(rankdata(estimate), rankdata(truth))
