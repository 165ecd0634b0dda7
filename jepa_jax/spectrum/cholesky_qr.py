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

import functools

import jax
import jax.numpy as jnp

from jepa_jax.spectrum.algorithm import Algorithm
from jepa_jax.spectrum.factor import TriangleFactor

SHIFTS = (32.0, 8.0, 8.0)
"""Shift of each round, in rounding units: of the first, where G is worst, times trace(G) / sqrt(K); later ones,
where all columns have nearly unit length, times trace(G) / K. The last one raises the volume by K / 2 times itself:
4e-4 nats at K = 768."""


CHUNK = 1024
"""Input values at a time. XLA needs 25 s to compile a division of all 150,528 for a TPU, and 4 s for as many as here;
three rounds as one loop are compiled once."""


def compress(transpose: jax.Array) -> TriangleFactor:
    """J^T, [D, K], to F with F F^T = J J^T."""
    inputs, outputs = transpose.shape
    if outputs >= inputs:
        return TriangleFactor.of(transpose)
    unit = jnp.finfo(transpose.dtype).eps
    scale = jnp.max(jnp.abs(transpose))
    begun = jnp.pad(transpose / jnp.where(scale > 0, scale, 1), ((0, -inputs % CHUNK), (0, 0)))
    shares = outputs**0.5, outputs, outputs
    shifts = [units * unit / share for units, share in zip(SHIFTS, shares, strict=True)]
    identity = jnp.eye(outputs, dtype=transpose.dtype)

    def add_square(total: jax.Array, chunk: jax.Array) -> tuple[jax.Array, None]:
        return total + jnp.einsum("dk,dl->kl", chunk, chunk, precision=jax.lax.Precision.HIGHEST), None

    def divide(state: tuple[jax.Array, jax.Array], shift: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        orthogonal, product = state
        gram, _ = jax.lax.scan(add_square, jnp.zeros_like(identity), orthogonal)
        lower = jnp.linalg.cholesky(gram + (shift * jnp.trace(gram) + jnp.finfo(transpose.dtype).tiny) * identity)
        orthogonal = jax.lax.map(functools.partial(_divided, lower), orthogonal)
        return (orthogonal, jnp.matmul(lower.T, product, precision=jax.lax.Precision.HIGHEST)), None

    state = begun.reshape(-1, CHUNK, outputs), identity * scale
    (_, product), _ = jax.lax.scan(divide, state, jnp.asarray(shifts, transpose.dtype))
    return TriangleFactor(product.T)


def _divided(lower: jax.Array, chunk: jax.Array) -> jax.Array:
    """Q R^-1 of some rows of Q, with R^T in hand."""
    return jax.lax.linalg.triangular_solve(lower, chunk, left_side=False, lower=True, transpose_a=True)


ALGORITHM = Algorithm(compress)
