"""The spectrum from J J^T in float64: one matrix product, then a K x K eigensolve or, for the volume, a Cholesky.

Domain: values above 1e-8 of the largest, see `GramFactor`. For a float64 Jacobian whose smallest values matter, use
`svd`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jepa_jax.spectrum.algorithm import Algorithm
from jepa_jax.spectrum.factor import GramFactor

CHUNK = 4096
"""Input values that are widened to float64 at a time, so that no second, twice as wide Jacobian exists."""

PARTS = 4
"""Products side by side that a chunk is summed in: one of all its values has too small a result to fill a GPU."""


def compress(transpose: jax.Array) -> GramFactor:
    """J^T, [D, K], to J J^T."""
    inputs, outputs = transpose.shape
    whole = inputs // CHUNK * CHUNK
    gram = _square(transpose[whole:])
    if whole == 0:
        return GramFactor(gram)
    chunks = transpose[:whole].reshape(-1, PARTS, CHUNK // PARTS, outputs)

    def add(gram: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        return gram + jnp.sum(_square(jax.lax.dynamic_index_in_dim(chunks, number, keepdims=False)), axis=0), None

    gram, _ = jax.lax.scan(add, gram, jnp.arange(len(chunks)))
    return GramFactor(gram)


def _square(transpose: jax.Array) -> jax.Array:
    """[..., D, K] to [..., K, K]."""
    wide = transpose.astype(jnp.float64)
    return jnp.einsum("...dk,...dl->...kl", wide, wide, precision=jax.lax.Precision.HIGHEST)


ALGORITHM = Algorithm(compress, needs_float64=True)
