"""Choosing and running a spectrum algorithm.

Each algorithm is one file with the same two functions: ``compress`` turns a Jacobian [K, D] into a
small factor, ``singular_values`` reads the spectrum of the Jacobian, or of its projection, off the factor.
"""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Literal

import jax
import jax.numpy as jnp

from jepa_jax.encoders.null_directions import complement_basis
from jepa_jax.errors import ArgumentError
from jepa_jax.spectrum import gram, svd

Method = Literal["auto", "svd", "gram"]

ALGORITHMS: dict[str, ModuleType] = {"svd": svd, "gram": gram}


def singular_values(jacobian: jax.Array, method: Method = "auto") -> jax.Array:
    """Singular values of Jacobians.

    Args:
        jacobian: [..., K, *input] as `jepa_jax.jacobian` returns it for a batch, or matrices [..., K, D].
            One leading axis is the batch where there are three axes or more; a matrix [K, D] is one Jacobian.
        method: ``svd`` works in the Jacobian's precision, ``gram`` in float64. ``auto`` takes ``gram`` for
            a float32 Jacobian where the backend has fast float64 (CPU, GPU), else ``svd``.

    Returns:
        [..., K], descending; zeros past the rank where D < K. In the Jacobian's dtype.
    """
    jacobian = jnp.asarray(jacobian)
    if jacobian.ndim < 2 or not jnp.issubdtype(jacobian.dtype, jnp.floating):
        raise ArgumentError(
            f"jacobian has shape {jacobian.shape} and dtype {jacobian.dtype}; it must be a floating-point "
            "matrix [K, D] or a batch [B, K, ...]."
        )
    if jacobian.ndim == 2:
        values, _ = structural_spectrum(jacobian, None, method)
    else:
        values, _ = jax.lax.map(lambda matrix: structural_spectrum(matrix, None, method), jacobian)
    return values.astype(jacobian.dtype)


def structural_spectrum(
    jacobian: jax.Array, null_directions: jax.Array | None, method: Method
) -> tuple[jax.Array, jax.Array]:
    """Both spectra of one Jacobian: all of it, and what is left when structural nulls are projected out.

    The nulls are projected out before the spectrum is taken. Sorting and dropping the smallest values
    instead would keep the noise that they mix into their neighbours.

    Args:
        jacobian: [K, *input].
        null_directions: [K, m], J^T n = 0 up to rounding; None if there are none.
        method: as for `singular_values`.

    Returns:
        All singular values [K], and the structural ones [min(K - m, D)], both descending; float64
        where the algorithm computes in it.
    """
    flat = jacobian.reshape(jacobian.shape[0], -1)
    outputs, inputs = flat.shape
    algorithm = ALGORITHMS[resolve_method(method, jacobian.dtype)]
    with float64_scope(algorithm is gram or jacobian.dtype == jnp.float64):
        factor = algorithm.compress(flat)
        values = algorithm.singular_values(factor)[: min(outputs, inputs)]
        everything = jnp.pad(values, (0, outputs - values.shape[0]))
        if null_directions is None or null_directions.shape[-1] == 0:
            return everything, values
        basis = complement_basis(null_directions.astype(factor.dtype))
        kept = algorithm.singular_values(factor, basis)
        return everything, kept[: min(outputs - null_directions.shape[-1], inputs)]


def float64_scope(wanted: bool) -> contextlib.AbstractContextManager:
    """Where float64 exists: JAX has it only on request, and the rest of a program should not get it."""
    return jax.enable_x64(True) if wanted else contextlib.nullcontext()


def resolve_method(method: Method, dtype: jnp.dtype) -> Literal["svd", "gram"]:
    """The algorithm that ``auto`` stands for."""
    if method == "auto":
        fast_float64 = jax.default_backend() in ("cpu", "gpu")
        return "gram" if fast_float64 and dtype != jnp.float64 else "svd"
    if method not in ALGORITHMS:
        raise ArgumentError(f"method={method!r} is unknown; use 'auto', 'svd' or 'gram'.")
    return method
