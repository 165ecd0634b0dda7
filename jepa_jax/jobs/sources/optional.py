"""Packages that only some kinds of input need."""

from __future__ import annotations

from importlib.util import find_spec

from jepa_jax.errors import ArgumentError


def require_package(package: str, purpose: str) -> None:
    """Raise ArgumentError, naming the remedy, where a package of the ``data`` extra is not installed."""
    if find_spec(package) is None:
        raise ArgumentError(f"{purpose} need the package {package}: pip install 'jepa-jax[data]'.")
