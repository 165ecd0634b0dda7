"""Patterns that name several files."""

from __future__ import annotations

import glob
import os
import re

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.names import text_key
from jepa_jax.paths import to_path

MOST_FILES = 1_000_000
"""Files that a pattern may count."""


def expand(pattern: str) -> list[str]:
    """The files of a pattern: ``{000..127}`` counts, keeping leading zeros; ``*``, ``?`` and ``[...]`` match."""
    found = re.fullmatch(r"(.*)\{(\d{1,12})\.\.(\d{1,12})\}(.*)", pattern)
    if found:
        head, first, last, tail = found.groups()
        if not 0 <= int(last) - int(first) < MOST_FILES:
            raise ArgumentError(f"input {text_key(pattern)} counts from {first} to {last}: give at most a million.")
        return [f"{head}{number:0{len(first)}d}{tail}" for number in range(int(first), int(last) + 1)]
    if not glob.has_magic(pattern):
        return [pattern]
    parent, below = _divided(pattern)
    if "://" in pattern:
        files = sorted(str(file) for file in to_path(parent).glob(below))
    else:
        files = sorted(_below(parent, file) for file in glob.glob(below, root_dir=parent, recursive=True))
    if not files:
        raise ArgumentError(f"input {text_key(pattern)} matches no file.")
    return files


def _divided(pattern: str) -> tuple[str, str]:
    """The folder that a pattern begins in, and the pattern below it; ``a[1]`` may be a folder's own name."""
    *folders, name = pattern.split("/")
    depth = len(folders)
    while depth and any(map(glob.has_magic, folders[:depth])) and not os.path.isdir("/".join(folders[:depth])):
        depth -= 1
    parent = "/".join(folders[:depth])
    return parent or ("/" if pattern.startswith("/") else "."), "/".join((*folders[depth:], name))


def _below(parent: str, file: str) -> str:
    return file if parent == "." else os.path.join(parent, file)
