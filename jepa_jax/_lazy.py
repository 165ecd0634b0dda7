"""A package whose names are imported when they are first asked for."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping
from typing import Any


def import_lazily(package: str, homes: Mapping[str, str]) -> None:
    """Give a package, while it is being imported, names that are imported on demand.

    A submodule never takes the place of a name in the table. Python sets it in its package as soon as it is loaded:
    left to that, `jepa_jax.jacobian` would be the function or the room, whichever was asked for first.

    Args:
        package: its full name.
        homes: the module that defines each name.
    """

    class Face(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name not in homes:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            value = getattr(importlib.import_module(homes[name]), name)
            setattr(self, name, value)  # from now on it is found without this function
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            if not (name in homes and isinstance(value, types.ModuleType)):
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *homes})

    face = sys.modules[package]
    face.__class__ = Face  # as Python's reference has it: "Customizing module attribute access"
    vars(face)["__all__"] = [name for name in dir(face) if not name.startswith("_")]  # for `from PACKAGE import *`
