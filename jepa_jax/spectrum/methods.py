"""The table of algorithms, and which of them ``auto`` stands for."""

from __future__ import annotations

from importlib import import_module
from typing import Literal, get_args

import jax.numpy as jnp

from jepa_jax.errors import ArgumentError
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.product_rates import float64_is_fast
from jepa_jax.spectrum.algorithm import Algorithm

Method = Literal[
    "auto",
    "svd",  # Householder QR in the Jacobian's own precision: backward stable, and slowest
    "gram",  # one product in float64
    "cholesky_qr",  # products alone, in the Jacobian's own precision: for devices without fast float64
]
"""``auto``, or the algorithm of the file of that name in `jepa_jax.spectrum`. A new one is its file, which defines
``ALGORITHM``, and its line here."""

ALGORITHMS: dict[str, Algorithm] = {
    name: import_module(f"jepa_jax.spectrum.{name}").ALGORITHM for name in get_args(Method) if name != "auto"
}


def check_method(method: str) -> None:
    """Refuse an unknown method."""
    if method not in get_args(Method):
        raise ArgumentError(f"method={method!r} is unknown; use one of {', '.join(map(repr, get_args(Method)))}.")


def method_name(method: Method, dtype: jnp.dtype, platform: Platform) -> str:
    """The name of an algorithm, or of the one that ``auto`` stands for.

    Args:
        method: as a user gives it.
        dtype: of the Jacobian.
        platform: of the devices that compute.

    Raises:
        ArgumentError: there is no such method.
    """
    if method == "auto":
        if dtype == jnp.float64:
            return "svd"
        return "gram" if float64_is_fast(platform) else "cholesky_qr"
    check_method(method)
    return method


def resolve_method(method: Method, dtype: jnp.dtype, platform: Platform) -> Algorithm:
    """The algorithm of `method_name`."""
    return ALGORITHMS[method_name(method, dtype, platform)]
