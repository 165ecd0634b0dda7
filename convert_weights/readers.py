"""Reading tensors by name from files, one at a time, without executing anything that they contain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from convert_weights.config import shown
from jepa_jax.errors import CheckpointError


@dataclass(frozen=True)
class TensorInfo:
    """What a file's header says of a tensor: its shape, and its dtype by NumPy's name."""

    shape: tuple[int, ...]
    dtype: str


class TensorReader(Protocol):
    """A source of named tensors."""

    path: Path

    def names(self) -> Iterable[str]:
        """All tensor names."""
        ...

    def describe(self, name: str) -> TensorInfo:
        """Shape and dtype of one tensor, without reading it."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor, in its stored dtype."""
        ...

    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        ...


class Shards:
    """Several files as one source, each with the tensors that an index says are in it.

    Args:
        path: the folder, for errors.
        shards: the files, and the tensors that are expected in each.
    """

    def __init__(self, path: Path, shards: Sequence[tuple[TensorReader, frozenset[str]]]):
        self.path = path
        self._reader_of: dict[str, TensorReader] = {}
        for reader, expected in shards:
            if set(reader.names()) != expected:
                raise CheckpointError(
                    f"the index of {path} and its shard {reader.path.name} name different tensors; download both "
                    "again."
                )
            self._reader_of |= dict.fromkeys(expected, reader)

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._reader_of.keys()

    def describe(self, name: str) -> TensorInfo:
        """Shape and dtype of one tensor, without reading it."""
        return self._reader_of[name].describe(name)

    def read(self, name: str) -> np.ndarray:
        """One tensor, as its shard gives it."""
        return self._reader_of[name].read(name)

    def files(self) -> list[Path]:
        """The shards."""
        return sorted({file for reader in self._reader_of.values() for file in reader.files()})


class Renamed:
    """A source under other names.

    Args:
        reader: the source.
        name_in_file: the new names, each with the one in the file.
    """

    def __init__(self, reader: TensorReader, name_in_file: Mapping[str, str]):
        self.path = reader.path
        self._reader = reader
        self._name_in_file = name_in_file

    def names(self) -> Iterable[str]:
        """All new names."""
        return self._name_in_file.keys()

    def describe(self, name: str) -> TensorInfo:
        """Shape and dtype of one tensor, without reading it."""
        return self._reader.describe(self._name_in_file[name])

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        return self._reader.read(self._name_in_file[name])

    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return self._reader.files()


WRAPPERS = ("module.", "_orig_mod.")
"""What PyTorch's data parallelism and `torch.compile` put before the name of every tensor, in either order."""


def unwrapped(reader: TensorReader) -> TensorReader:
    """A source without the prefixes of `WRAPPERS`, which all names must have, or none.

    What was compiled may be a part of the model as well: then its prefix stands within names.
    """
    name_in_file = {name: name for name in reader.names()}
    for _ in range(2 * len(WRAPPERS)):  # each twice, which is more than is ever done
        wrapper = next((w for w in WRAPPERS if any(name.startswith(w) for name in name_in_file)), None)
        if wrapper is None:
            break
        prefixed = sum(name.startswith(wrapper) for name in name_in_file)
        if prefixed != len(name_in_file):
            raise CheckpointError(
                f"{reader.path}: {prefixed} of {len(name_in_file)} names begin with {wrapper!r}; all must, or none."
            )
        name_in_file = {name.removeprefix(wrapper): theirs for name, theirs in name_in_file.items()}
    plain = {name.replace("._orig_mod.", "."): theirs for name, theirs in name_in_file.items()}
    if len(plain) != len(name_in_file):
        raise CheckpointError(f"{reader.path} holds tensors that differ by the prefix '_orig_mod.' alone.")
    return reader if all(name == theirs for name, theirs in plain.items()) else Renamed(reader, plain)


def some(names: Sequence[str]) -> str:
    """The first few of several names, as errors show them: what a stranger named may be long, or no text."""
    written = [name if name.isprintable() and len(name) <= 100 else shown(name) for name in names[:3]]
    return ", ".join(written) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
