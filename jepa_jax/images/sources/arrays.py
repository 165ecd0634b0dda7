"""uint8 pictures in one NumPy array: ``.npy``, or ``.npz`` with one such array."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.kind import SourceKind
from jepa_jax.images.sources.records import Records, identity

NAMES = ("images", "image", "x")
"""Names of the array in an ``.npz`` that holds several, in order of preference."""


@dataclass(frozen=True)
class _Rows(Sequence):
    """Each picture is its own locator, read when it is asked for: a local ``.npy`` stays on disk."""

    pictures: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index):
        return np.ascontiguousarray(self.pictures[index])


def open_arrays(name: str, files: Sequence[str]) -> Records:
    """Pictures [N, H, W] or [N, H, W, C] of dtype uint8; the key is the position, from 0.

    Raises:
        ArgumentError: the file cannot be read, or holds no such array.
    """
    (path,) = files
    try:
        pictures = _load(epath.Path(path), path)
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"input {name} cannot be read as a NumPy array: {error}") from error
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4) or not pictures.size:
        raise ArgumentError(
            f"input {name} holds an array of dtype {pictures.dtype} and shape {pictures.shape}; pictures must be "
            "uint8 [N, H, W] or [N, H, W, channels], with values 0..255."
        )
    return Records(name, [str(i) for i in range(len(pictures))], _Rows(pictures), identity, (path,), positional=True)


def _load(file: epath.Path, path: str) -> np.ndarray:
    if file.suffix.lower() == ".npy":
        if "://" not in path:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
        name = arrays.files[0] if len(arrays.files) == 1 else next((n for n in NAMES if n in arrays.files), None)
        if name is None:
            raise ArgumentError(f"input {path} holds the arrays {arrays.files}; call one of them {NAMES[0]!r}.")
        return arrays[name]


def _is_array_file(name: str) -> bool:
    return epath.Path(name).suffix.lower() in (".npy", ".npz")


ARRAYS = SourceKind(wording=".npy/.npz arrays", read=open_arrays, is_file=_is_array_file)
