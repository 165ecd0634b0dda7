"""Programs that earlier runs compiled: kept on disk, and made anew where a file is damaged.

JAX warns of an entry that it cannot read, compiles the program, and leaves the entry as it is, since it writes over
none: the same warning and the same compilation at every start. So the entries of that program are removed when the
warning comes, which is before JAX writes what it compiles.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from jepa_jax.paths import to_path

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_UNREADABLE = "Error reading persistent compilation cache entry for '([^']*)'"


def keep_compiled_programs() -> None:
    """Turn on JAX's persistent compilation cache, unless ``JAX_COMPILATION_CACHE_DIR`` names another.

    By that variable, which JAX reads when it is imported: a command that needs no JAX does not wait for it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jepa_jax" / "compiled"
    os.environ.setdefault(_VARIABLE, str(cache))
    if "jax" in sys.modules and _folder() is None:
        sys.modules["jax"].config.update("jax_compilation_cache_dir", os.environ[_VARIABLE])
    warnings.filterwarnings("always", message=_UNREADABLE)  # a second one of the same words as well
    show = warnings.showwarning

    def replace_or_show(message: Warning | str, *details: Any, **more: Any) -> None:
        found = re.match(_UNREADABLE, str(message))
        if found is None or not _remove(found[1]):
            show(message, *details, **more)

    warnings.showwarning = replace_or_show


def _folder() -> str | None:
    import jax

    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


def _remove(program: str) -> int:
    """Remove the entries of a program; how many. Which of them is damaged JAX does not say."""
    removed = 0
    folder = to_path(_folder() or "")
    for entry in list(folder.glob(f"{program}-*")):
        if re.fullmatch(rf"{re.escape(program)}-[0-9a-f]+-cache", entry.name):
            with contextlib.suppress(OSError):
                entry.unlink()
                removed += 1
    return removed
