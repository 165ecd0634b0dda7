"""Choosing and running a spectrum algorithm.

Each algorithm is one file with the same seven functions: ``compress`` turns J^T [D, K] into a small factor,
``merge`` joins the factors of parts of the input, ``singular_values`` reads the spectrum of B^T J off the
factor, ``left_vectors`` its singular vectors as well, ``triangle`` a triangle with the same volume, which needs no
eigensolver, ``size`` the norm of J, and ``residual`` its norm along one direction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jepa_jax.errors import ArgumentError
from jepa_jax.spectrum import cholesky_qr, gram, svd

Method = Literal["auto", "svd", "gram", "cholesky_qr"]

ALGORITHMS: dict[str, ModuleType] = {"svd": svd, "gram": gram, "cholesky_qr": cholesky_qr}


def singular_values(jacobian: jax.Array, method: Method = "auto") -> jax.Array:
    """Singular values of Jacobians.

    Args:
        jacobian: [..., K, *input] as `jepa_jax.jacobian` returns it for a batch, or matrices [..., K, D].
            One leading axis is the batch where there are three axes or more; a matrix [K, D] is one Jacobian.
        method: ``svd`` works in the Jacobian's precision, ``gram`` in float64, ``cholesky_qr`` in float32 by
            matrix products alone. ``auto`` takes ``svd`` for a float64 Jacobian, else ``gram`` where the
            backend has fast float64 (CPU, GPU) and ``cholesky_qr`` where it has not (TPU).

    Returns:
        [..., K], descending; zeros past the rank where D < K. In the Jacobian's dtype.
    """
    jacobian = jnp.asarray(jacobian)
    if jacobian.ndim < 2 or not jnp.issubdtype(jacobian.dtype, jnp.floating):
        raise ArgumentError(
            f"jacobian has shape {jacobian.shape} and dtype {jacobian.dtype}; it must be a floating-point "
            "matrix [K, D] or a batch [B, K, ...]."
        )
    algorithm = resolve_method(method, jacobian.dtype)

    def one(matrix: jax.Array) -> jax.Array:
        flat = matrix.reshape(matrix.shape[0], -1)
        with algorithm_scope(algorithm, jacobian.dtype):
            values = all_values(algorithm, algorithm.compress(flat.T), flat.shape[1])
            return values.astype(jacobian.dtype)

    return one(jacobian) if jacobian.ndim == 2 else jax.lax.map(one, jacobian)


def for_each(function: Callable[..., Any], *arrays: jax.Array) -> Any:
    """A function that decomposes matrices, over the leading axis: on a CPU one by one, elsewhere side by side.

    XLA's CPU backend (jaxlib 0.10.1) hands a batch of decompositions to its pool of threads, and holds one of them
    while it waits: of two batches at the same time, on two cores, each waits for the other's thread for ever.
    """
    if arrays[0].shape[0] == 1:  # a batch axis of one would turn plain products into batched ones, which are slower
        return jax.tree.map(lambda leaf: leaf[None], function(*(array[0] for array in arrays)))
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda values: function(*values), arrays)
    return jax.vmap(function)(*arrays)


def all_values(algorithm: ModuleType, factor: jax.Array, inputs: int) -> jax.Array:
    """All K singular values of J [K, inputs], descending; zeros past the rank where it has fewer inputs."""
    outputs = factor.shape[0]
    values = algorithm.singular_values(factor)[: min(outputs, inputs)]
    return jnp.pad(values, (0, outputs - values.shape[0]))


def structural_values(algorithm: ModuleType, factor: jax.Array, basis: jax.Array, inputs: int) -> jax.Array:
    """Singular values of B^T J: what is left when structural nulls are projected out, [min(L, inputs)].

    Sorting all values and dropping the smallest instead would keep the noise that the nulls mix into their
    neighbours.
    """
    return algorithm.singular_values(factor, basis)[: min(basis.shape[1], inputs)]


def log_volume(algorithm: ModuleType, factor: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log det (B^T J J^T B)^(1/2) without an eigensolver, and the sum that says whether to trust it.

    Args:
        algorithm: what made the factor.
        factor: of J [K, D].
        basis: B [K, L], orthonormal, L <= D.

    Returns:
        The sum of log singular values of B^T J, nats, NaN where a value is lost in rounding; and the sum of
        their inverse squares q. The smallest value lies between sqrt(1 / q) and sqrt(L / q).
    """
    lower = algorithm.triangle(factor, basis)
    inverse = jax.lax.linalg.triangular_solve(
        lower, jnp.eye(lower.shape[0], dtype=lower.dtype), left_side=True, lower=True
    )
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(lower)))), jnp.sum(inverse**2)


def algorithm_scope(algorithm: ModuleType, dtype: jnp.dtype) -> contextlib.AbstractContextManager:
    """The dtypes that an algorithm needs for a Jacobian of a dtype."""
    return float64_scope(algorithm is gram or dtype == jnp.float64)


def float64_scope(wanted: bool) -> contextlib.AbstractContextManager:
    """Where float64 exists: JAX has it only on request, and the rest of a program should not get it."""
    return jax.enable_x64(True) if wanted else contextlib.nullcontext()


def resolve_method(method: Method, dtype: jnp.dtype) -> ModuleType:
    """The algorithm of a name, or the one that ``auto`` stands for."""
    return ALGORITHMS[method_name(method, dtype)]


def method_name(method: Method, dtype: jnp.dtype) -> str:
    """The name of an algorithm, or of the one that ``auto`` stands for."""
    if method == "auto":
        if dtype == jnp.float64:
            return "svd"
        return "gram" if jax.default_backend() in ("cpu", "gpu") else "cholesky_qr"
    if method not in ALGORITHMS:
        raise ArgumentError(f"method={method!r} is unknown; use 'auto', {', '.join(map(repr, ALGORITHMS))}.")
    return method
