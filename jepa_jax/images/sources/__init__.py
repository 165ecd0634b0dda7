"""What is scored: one file per kind of input, each of which turns an input into `Records`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence

from etils import epath

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.array_record import ARRAY_RECORD
from jepa_jax.images.sources.arrays import ARRAYS
from jepa_jax.images.sources.folder import FOLDER, is_image
from jepa_jax.images.sources.kind import SourceKind
from jepa_jax.images.sources.listing import LISTING
from jepa_jax.images.sources.records import Records, full_path
from jepa_jax.images.sources.tfds import TFDS
from jepa_jax.images.sources.webdataset import WEBDATASET

KINDS: tuple[SourceKind, ...] = (
    FOLDER,
    WEBDATASET,
    ARRAY_RECORD,
    TFDS,
    LISTING,
    ARRAYS,
)
"""Every kind of input, in the order in which messages name them. The first that recognises an input opens it."""


def accepted() -> str:
    """All kinds in words, as messages name them after "give"."""
    *others, last = (kind.wording for kind in KINDS)
    return f"{', '.join(others)}, or {last}"


def open_source(path: epath.PathLike) -> Records:
    """Find the records of an input, by what it is.

    Several archives are given as a pattern, ``shard-*.tar`` or ``shard-{000..127}.tar``, or as a folder that
    holds no image but archives.

    Raises:
        ArgumentError: it is nothing that can be scored, or holds no record.
    """
    name = os.fspath(path)
    if kind := _named(name):
        return kind.open(name)
    source = epath.Path(path)
    if source.is_dir():
        return _open_directory(name, source)
    if source.is_file():
        return _open_files(name, [name])
    files = expand(name)
    if files != [name]:
        return _open_files(name, files)
    raise ArgumentError(f"input {name} does not exist; give {accepted()}.")


def name_in_full(name: str) -> str:
    """An input's name wherever the command is given: local paths in full."""
    kind = _named(name)
    return kind.in_full(name) if kind else full_path(name)


def _named(name: str) -> SourceKind | None:
    return next((kind for kind in KINDS if kind.is_named(name)), None)


def _open_directory(name: str, directory: epath.Path) -> Records:
    entries = sorted(entry.name for entry in directory.iterdir())
    for kind in KINDS:
        if kind.is_folder(entries):
            return kind.open(name, [name])
    archives = [entry for entry in entries if any(kind.several and kind.is_file(entry) for kind in KINDS)]
    if archives and not any(map(is_image, entries)):
        return _open_files(name, [os.path.join(name, entry) for entry in archives])
    return FOLDER.open(name, [name])


def _open_files(name: str, files: Sequence[str]) -> Records:
    missing = [file for file in files if not epath.Path(file).is_file()]
    if missing:
        raise ArgumentError(f"input {name} names {len(missing)} files that do not exist, such as {missing[0]}.")
    for kind in KINDS:
        if kind.are_files(files):
            return kind.open(name, files)
    hint = " Decompress it first." if name.endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")) else ""
    raise ArgumentError(f"input {name} is of no known kind; give {accepted()}.{hint}")


def expand(pattern: str) -> list[str]:
    """The files of a pattern: ``{000..127}`` counts, keeping leading zeros; ``*``, ``?`` and ``[...]`` match."""
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if found:
        head, first, last, tail = found.groups()
        return [f"{head}{number:0{len(first)}d}{tail}" for number in range(int(first), int(last) + 1)]
    if not glob.has_magic(pattern):
        return [pattern]
    parent, _, name = pattern.rpartition("/")
    files = sorted(os.fspath(file) for file in epath.Path(parent or ".").glob(name))
    if not files:
        raise ArgumentError(f"input {pattern} matches no file.")
    return files
