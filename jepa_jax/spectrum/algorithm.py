"""What an algorithm is: the way from a Jacobian to its factor, and what that needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.spectrum.factor import Factor


@dataclass(frozen=True)
class Algorithm:
    """One way to compress a Jacobian.

    Attributes:
        compress: J^T, [D, K], to a factor of J; called, as all of the factor's methods, inside `scope`.
        needs_float64: whether it computes in float64 whatever the Jacobian's dtype.
    """

    compress: Callable[[jax.Array], Factor]
    needs_float64: bool = False

    def scope(self, dtype: jnp.dtype) -> contextlib.AbstractContextManager:
        """Where the dtypes exist that it needs for a Jacobian of this dtype."""
        return float64_scope(self.needs_float64 or dtype == jnp.float64)
