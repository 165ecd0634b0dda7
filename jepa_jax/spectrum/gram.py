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


def compress(transpose: jax.Array) -> GramFactor:
    """J^T, [D, K], to J J^T."""
    whole = transpose.shape[0] // CHUNK * CHUNK
    if whole == 0:
        return GramFactor(_square(transpose))

    def add(gram: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        return gram + _square(jax.lax.dynamic_slice_in_dim(transpose, start, CHUNK)), None

    gram, _ = jax.lax.scan(add, _square(transpose[whole:]), jnp.arange(0, whole, CHUNK))
    return GramFactor(gram)


def _square(transpose: jax.Array) -> jax.Array:
    wide = transpose.astype(jnp.float64)
    return jnp.einsum("dk,dl->kl", wide, wide, precision=jax.lax.Precision.HIGHEST)


ALGORITHM = Algorithm(compress, needs_float64=True)
