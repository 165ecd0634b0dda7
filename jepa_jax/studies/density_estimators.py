"""Density estimators that see the data themselves: what a score has to compare with."""

from __future__ import annotations

import numpy as np
from scipy.stats import gaussian_kde
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 20


def estimate_log_densities(samples: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    """Estimated log densities at points, up to constants.

    Args:
        samples: what the estimators are fitted to, [N, D].
        points: where they are asked, [B, D]; none of the samples.

    Returns:
        ``kde`` (Gaussian kernels, Scott's rule), ``knn`` (-D log of the distance to the 20th neighbour),
        ``fitted_gaussian`` (one full Gaussian: what whitening alone, a linear encoder, would say), and
        ``fitted_mixture`` (eight full Gaussians by EM), [B] each.
    """
    distances = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(samples).kneighbors(points)[0][:, -1]
    one, eight = (GaussianMixture(count, random_state=0, reg_covar=1e-4).fit(samples) for count in (1, 8))
    return {
        "kde": np.asarray(gaussian_kde(samples.T).logpdf(points.T)),
        "knn": -samples.shape[1] * np.log(distances),
        "fitted_gaussian": np.asarray(one.score_samples(points)),
        "fitted_mixture": np.asarray(eight.score_samples(points)),
    }
