"""The gradient of a score: which way an image would have to change to become more typical.

With B an orthonormal basis of the structural subspace and B^T J = sum_i s_i u_i v_i^T, the score is sum_i log s_i, so

    d score = sum_i u_i^T B^T dJ v_i / s_i = <C J, dJ>,    C = B (sum_i u_i u_i^T / s_i^2) B^T,

where values below ``eps`` do not move the score and are left out. J is itself a derivative. Its row k is the gradient
of output k, so with the rows w_k of W = C J held fixed,

    d score / dx = sum_k H_k w_k,    H_k the Hessian of output k,

each of which is one pushforward through one pullback: the gradient costs a few Jacobians, and no second derivative is
ever stored. The basis turns with the image too. With P = B B^T that is <J J^T C, dP>, of which only what leads out of
the subspace counts: with Q an orthonormal basis of the null directions, <Q Q^T J W^T, dP>. It is zero where they are
exactly null; LayerNorm's second one is so up to its epsilon.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.backend_check import require_sound_backend
from jepa_jax.jacobian.fold import Kernels
from jepa_jax.jacobian.function import AnyEncoder, Differentiable, output_size, pure_function
from jepa_jax.jacobian.generic import DEFAULT_ROWS
from jepa_jax.jacobian.jacobian import embed_with_nulls, jacobian_rows, prepare
from jepa_jax.jacobian.options import Engine, Mode
from jepa_jax.numerics.bases import complement_basis
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.numerics.precision import Precision, working_dtype
from jepa_jax.scoring.compute import cast_inputs
from jepa_jax.scoring.options import Numerics, ScoreOptions
from jepa_jax.spectrum.methods import Method, resolve_method
from jepa_jax.spectrum.scores import DEFAULT_EPS


def score_gradient(
    encoder: AnyEncoder,
    batch: jax.Array | np.ndarray,
    *,
    precision: Precision = "float32",
    mode: Mode = "auto",
    engine: Engine = "auto",
    method: Method = "auto",
    eps: float = DEFAULT_EPS,
    block_size: int | None = None,
) -> jax.Array:
    """d score / d image, for ``ScoreResult.score`` of `jepa_jax.score`; costs a few times a score.

    Small singular values weigh most, and float32 rounding in J weighs on them: expect an error of about a
    thousandth of the gradient's length. ``float64`` is exact and turns JAX's float64 on for itself.

    Args:
        encoder: an `Encoder`, an `OwnEncoder`, or any JAX function ``[B, ...] -> [B, K]`` that treats examples
            independently; twice differentiable. A function is compiled once per object.
        batch: [B, H, W, 3], or the function's input.
        precision: ``float32`` or ``float64``.
        mode: of the Jacobian, see `jepa_jax.jacobian.options.JacobianOptions`, as for the next.
        engine: ``rules`` or ``generic``.
        method: of the spectrum, see `jepa_jax.singular_values`.
        eps: clip of singular values; those below it do not count.
        block_size: rows in one pass.

    Returns:
        [B, H, W, 3] in the precision's dtype, nats per unit of the preprocessed input. NaN for a broken image.

    Raises:
        ArgumentError: an argument is invalid.
        BackendError: the backend computes wrong numbers.
    """
    if precision not in ("float32", "float64"):
        raise ArgumentError(f"precision={precision!r} is too coarse for a gradient; use 'float32' or 'float64'.")
    function, params = pure_function(encoder)
    options = ScoreOptions(precision, mode, engine, method=method, eps=eps, block_size=block_size)
    require_sound_backend(options.numerics.jacobian, function.vit)
    with float64_scope(precision == "float64"):
        return _gradients(function, options.numerics, params, jnp.asarray(batch))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradients(function: Differentiable, numerics: Numerics, params: Any, batch: jax.Array) -> jax.Array:
    params, batch = cast_inputs(params, batch, jnp.dtype(working_dtype(numerics.precision)))
    output_size(functools.partial(function, params), batch)  # raises where the function is unfit
    with jax.default_matmul_precision("highest"):
        prepared = prepare(function, params, batch.shape[1:], numerics.jacobian, compact=False)
        return jax.lax.map(functools.partial(_gradient, function, numerics, params, prepared), batch)


def _gradient(
    function: Differentiable, numerics: Numerics, params: Any, prepared: Kernels, image: jax.Array
) -> jax.Array:
    """Of one image, in its shape."""

    def embed(image: jax.Array) -> jax.Array:
        return function(params, image[None])[0]

    rows = jacobian_rows(function, params, prepared, image, options=numerics.jacobian)
    nulls = embed_with_nulls(function, params, image)[1]
    matrix = rows.reshape(rows.shape[0], -1)
    flat = _inverse_square(numerics, matrix, nulls) @ matrix
    weights = flat.reshape(rows.shape)

    def curved(index: jax.Array, weight: jax.Array) -> jax.Array:
        """H_k w_k."""

        def slope(image: jax.Array) -> jax.Array:
            embedding, pullback = jax.vjp(embed, image)
            return pullback(jax.nn.one_hot(index, embedding.size, dtype=embedding.dtype))[0]

        return jax.jvp(slope, (image,), (weight,))[1]

    gradient = _sum_over_rows(curved, weights, numerics.jacobian.block_size or DEFAULT_ROWS)
    if nulls.shape[-1] == 0:
        return gradient
    null_basis = jnp.linalg.qr(nulls)[0]
    turn = null_basis @ ((null_basis.T @ matrix) @ flat.T)
    return gradient + jax.grad(lambda image: jnp.sum(turn * _projector(function, params, image)))(image)


def _inverse_square(numerics: Numerics, matrix: jax.Array, nulls: jax.Array) -> jax.Array:
    """C, [K, K], of a Jacobian [K, D] and its null directions [K, m]."""
    algorithm = resolve_method(numerics.method, matrix.dtype, numerics.platform)
    with algorithm.scope(matrix.dtype):
        factor = algorithm.compress(matrix.T)
        basis = complement_basis(nulls.astype(factor.dtype))
        vectors, values = factor.left_vectors(basis)
        rank = min(basis.shape[1], matrix.shape[1])
        vectors, values = basis @ vectors[:, :rank], values[:rank]
        counts = ~(values < numerics.eps)  # a NaN counts, and shows
        scaled = vectors * jnp.where(counts, 1 / jnp.where(counts, values, 1), 0)
        return (scaled @ scaled.T).astype(matrix.dtype)


def _projector(function: Differentiable, params: Any, image: jax.Array) -> jax.Array:
    """P = B B^T, [K, K], as a function of the image: onto the complement of its null directions N, 1 - N N^+."""
    nulls = embed_with_nulls(function, params, image)[1]
    return jnp.eye(nulls.shape[0], dtype=nulls.dtype) - nulls @ jnp.linalg.solve(nulls.T @ nulls, nulls.T)


def _sum_over_rows(of_row: Any, weights: jax.Array, block_size: int) -> jax.Array:
    """Sum of ``of_row(k, weights[k])`` over all k, ``block_size`` of them at a time."""
    size = weights.shape[0]
    blocks = math.ceil(size / block_size)
    each = math.ceil(size / blocks)
    # Rows that fill up the last block weigh nothing.
    padded = jnp.pad(weights, ((0, blocks * each - size), *((0, 0),) * (weights.ndim - 1)))
    indices = jnp.arange(blocks * each).reshape(blocks, each)

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + jnp.sum(jax.vmap(of_row)(*block), axis=0), None

    start = jnp.zeros(weights.shape[1:], weights.dtype)
    return jax.lax.scan(add, start, (indices, padded.reshape(blocks, each, *weights.shape[1:])))[0]
