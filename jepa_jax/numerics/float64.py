"""float64, which JAX has on request only."""

from __future__ import annotations

import contextlib

import jax


def float64_scope(wanted: bool) -> contextlib.AbstractContextManager:
    """Where float64 exists, if it is wanted; the rest of a program should not get it."""
    return jax.enable_x64(True) if wanted else contextlib.nullcontext()
