"""The spectrum from a shifted CholeskyQR of J^T in float32: for backends without fast float64, such as TPUs.

One round factors G = Q^T Q + shift = R^T R and divides, Q <- Q R^-1: three matrix products' worth of work, where
a Householder QR is a long chain of thin ones. A single round squares the condition number, which in float32
would lose every value below 3e-4 of the largest; the shift keeps the factorization alive, the next round starts
from a Q whose small values have risen by 1 / sqrt(shift), and after three (Fukaya et al. 2020, shifted
CholeskyQR3) the product of all R holds values down to 1e-6 of the largest to about a percent.

Domain: values above 1e-6 of the largest. Where J has fewer inputs than outputs, or less than full rank, the
missing values come out as noise below that.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jepa_jax.spectrum.algorithm import Algorithm
from jepa_jax.spectrum.factor import TriangleFactor

SHIFTS = (32.0, 8.0, 8.0)
"""Shift of each round, in rounding units: of the first, where G is worst, times trace(G) / sqrt(K); later ones,
where all columns have nearly unit length, times trace(G) / K. The last one raises the volume by K / 2 times itself:
4e-4 nats at K = 768."""


def compress(transpose: jax.Array) -> TriangleFactor:
    """J^T, [D, K], to F with F F^T = J J^T."""
    inputs, outputs = transpose.shape
    if outputs >= inputs:
        return TriangleFactor.of(transpose)
    unit = jnp.finfo(transpose.dtype).eps
    scale = jnp.max(jnp.abs(transpose))
    orthogonal = transpose / jnp.where(scale > 0, scale, 1)
    product = jnp.eye(outputs, dtype=transpose.dtype) * scale
    for number, units in enumerate(SHIFTS):
        gram = jnp.einsum("dk,dl->kl", orthogonal, orthogonal, precision=jax.lax.Precision.HIGHEST)
        share = outputs**0.5 if number == 0 else outputs
        shift = units * unit * jnp.trace(gram) / share + jnp.finfo(transpose.dtype).tiny
        lower = jnp.linalg.cholesky(gram + shift * jnp.eye(outputs, dtype=transpose.dtype))
        orthogonal = jax.lax.linalg.triangular_solve(lower, orthogonal, left_side=False, lower=True, transpose_a=True)
        product = jnp.matmul(lower.T, product, precision=jax.lax.Precision.HIGHEST)
    return TriangleFactor(product.T)


ALGORITHM = Algorithm(compress)
