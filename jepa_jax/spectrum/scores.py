"""From singular values to scores."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.errors import ArgumentError
from jepa_jax.numerics.float64 import float64_scope

DEFAULT_EPS = 1e-6
"""The clip of the paper's listing."""


def jepa_score(
    singular_values: jax.Array | np.ndarray, null_directions: int = 0, eps: float = DEFAULT_EPS
) -> jax.Array:
    """JEPA-SCORE: the sum of log singular values (arXiv 2510.05949, eq. 5). Higher = denser.

    Args:
        singular_values: [..., K], descending.
        null_directions: how many of the smallest values to leave out. The paper sums to rank(J); an
            encoder that ends in LayerNorm has rank K - 2 (see `jepa_jax.layers.layer_norm`).
            Dropping the smallest is the approximation to projecting the directions out, which
            `jepa_jax.score` does; they agree where noise does not reach the rest of the spectrum.
        eps: values below are raised to it, as in the paper's listing.

    Returns:
        [...], nats, in the dtype of the values.

    Raises:
        ArgumentError: ``null_directions`` is negative, or leaves no value; ``eps`` is no positive number.

    Example:
        >>> import jepa_jax as jj
        >>> import numpy as np
        >>> values = np.array([2.0, 1.0, 1e-9], np.float32)
        >>> float(jj.jepa_score(values, null_directions=1)) == float(np.log(np.float32(2)))
        True
    """
    with float64_scope(getattr(singular_values, "dtype", None) == np.float64):
        return _jepa_score(jnp.asarray(singular_values), null_directions, eps)


def _jepa_score(singular_values: jax.Array, null_directions: int, eps: float) -> jax.Array:
    count = singular_values.shape[-1]
    if isinstance(eps, float | int) and not 0 < eps < math.inf:
        raise ArgumentError(f"eps={eps} must be a positive number.")
    if not 0 <= null_directions < count:
        raise ArgumentError(f"null_directions={null_directions} must lie between 0 and K - 1 = {count - 1}.")
    kept = singular_values[..., : count - null_directions]
    return jnp.sum(jnp.log(jnp.maximum(kept, eps)), axis=-1)


def gaussian_score(score: jax.Array, embedding: jax.Array) -> jax.Array:
    """Change-of-variables log density: score + log N(embedding; 0, I).

    For an encoder trained to Gaussian embeddings. The score alone assumes that N(0, I) is uniform on
    a sphere, which fails for small K.

    Args:
        score: [...], nats.
        embedding: [..., K].

    Returns:
        [...], nats, in the score's dtype.
    """
    log_normal = -0.5 * jnp.sum(embedding**2, axis=-1) - 0.5 * embedding.shape[-1] * math.log(2 * math.pi)
    return score + log_normal.astype(score.dtype)
