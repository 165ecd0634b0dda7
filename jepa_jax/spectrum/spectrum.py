"""Singular values of Jacobians, and of their factors, many at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jepa_jax.errors import ArgumentError
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.numerics.platforms import Platform, platform_of
from jepa_jax.spectrum.factor import Factor
from jepa_jax.spectrum.methods import Method, resolve_method


def singular_values(jacobian: jax.Array | np.ndarray, method: Method = "auto") -> jax.Array:
    """Singular values of Jacobians.

    Args:
        jacobian: ``[..., K, *input]`` as `jepa_jax.jacobian` returns it for a batch, or matrices [..., K, D].
            One leading axis is the batch where there are three axes or more; a matrix [K, D] is one Jacobian.
        method: the algorithm, one of `jepa_jax.spectrum.methods.Method`. ``auto`` takes ``svd`` for a float64
            Jacobian, else ``gram`` where the device has fast float64 (CPUs, some GPUs) and ``cholesky_qr`` where it
            has not (TPUs, other GPUs).

    Returns:
        [..., K], descending; zeros past the rank where D < K. In the Jacobian's dtype, also where that is
        float64 and JAX's is off.

    Raises:
        ArgumentError: the method is unknown, or the Jacobian is no matrix or batch of floating-point numbers.

    Example:
        >>> import jepa_jax as jj
        >>> import numpy as np
        >>> jj.singular_values(np.diag([1.0, 3.0, 2.0]).astype(np.float32)).round(4).tolist()
        [3.0, 2.0, 1.0]
    """
    with float64_scope(getattr(jacobian, "dtype", None) == np.float64):
        return _singular_values(jnp.asarray(jacobian), method)


def _singular_values(jacobian: jax.Array, method: Method) -> jax.Array:
    if jacobian.ndim < 2 or not jnp.issubdtype(jacobian.dtype, jnp.floating):
        raise ArgumentError(
            f"jacobian has shape {jacobian.shape} and dtype {jacobian.dtype}; it must be a floating-point "
            "matrix [K, D] or a batch [B, K, ...]."
        )
    # While a program is traced, its arrays lie nowhere yet.
    platform = platform_of(None if isinstance(jacobian, Tracer) else jacobian.devices())
    algorithm = resolve_method(method, jacobian.dtype, platform)

    def one(matrix: jax.Array) -> jax.Array:
        flat = matrix.reshape(matrix.shape[0], -1)
        with algorithm.scope(jacobian.dtype):
            values = all_values(algorithm.compress(flat.T), flat.shape[1])
            return values.astype(jacobian.dtype)

    return one(jacobian) if jacobian.ndim == 2 else jax.lax.map(one, jacobian)


def for_each(function: Callable[..., Any], *trees: Any, platform: Platform) -> Any:
    """A function that decomposes matrices, over the leading axis: on a CPU one by one, elsewhere side by side.

    XLA's CPU backend (jaxlib 0.10.1) hands a batch of decompositions to its pool of threads, and holds one of them
    while it waits: of two batches at the same time, on two cores, each waits for the other's thread for ever.

    Args:
        function: of one member of each tree.
        trees: arrays or factors, each leaf [n, ...].
        platform: of the devices that compute.

    Returns:
        What the function returns, each leaf [n, ...].
    """
    if jax.tree.leaves(trees)[0].shape[0] == 1:
        # A batch axis of one would turn plain products into batched ones, which are slower.
        return jax.tree.map(lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf[0], trees)))
    if platform == "cpu":
        return jax.lax.map(lambda members: function(*members), trees)
    return jax.vmap(function)(*trees)


def all_values(factor: Factor, inputs: int) -> jax.Array:
    """All K singular values of J [K, inputs], descending; zeros past the rank where it has fewer inputs."""
    values = factor.singular_values()[: min(factor.outputs, inputs)]
    return jnp.pad(values, (0, factor.outputs - values.shape[0]))


def structural_values(factor: Factor, basis: jax.Array, inputs: int) -> jax.Array:
    """Singular values of B^T J: what is left when structural nulls are projected out, [min(L, inputs)].

    Args:
        factor: of J [K, inputs].
        basis: B [K, L], orthonormal.
        inputs: of the function; the values past the rank are left out.
    """
    return factor.singular_values(basis)[: min(basis.shape[1], inputs)]
