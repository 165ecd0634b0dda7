"""uint8 pictures in one NumPy array: ``.npy``, or ``.npz`` with one such array."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

import numpy as np

from jepa_jax.errors import ArgumentError
from jepa_jax.images.layouts import misread
from jepa_jax.images.sources.kind import PART, SourceKind
from jepa_jax.images.sources.npy import Header, RowReader, read_header, read_values, require_bytes
from jepa_jax.images.sources.places import row_place
from jepa_jax.images.sources.records import Records
from jepa_jax.paths import AnyPath, is_remote, to_path

NAMES = ("images", "image", "x")
"""Names of the array in an ``.npz`` that holds several."""

MOST_COMPRESSED = 1_100
"""Bytes of content per byte of a deflated file, at most: more is a size that is not true."""


@dataclass(frozen=True)
class _Rows(Sequence):
    """Locators (position, picture)."""

    pictures: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index):
        return index, np.ascontiguousarray(self.pictures[index])


def picture_of(locator: tuple[int, np.ndarray]) -> np.ndarray:
    """The reader of records that carry their pictures."""
    return locator[1]


def open_arrays(name: str, files: Sequence[str], array: str | None = None) -> Records:
    """Pictures [N, H, W] or [N, H, W, C] of dtype uint8; the key is the position, from 0.

    Of a local ``.npy`` in C order, every picture is read when it is its turn. All else is read into memory.

    Args:
        name: what the user called the input.
        files: the one file.
        array: which one of an ``.npz``.

    Raises:
        ArgumentError: the file cannot be read, holds no such array, or one that could be read in two ways.
    """
    (path,) = files
    file = to_path(path)
    if file.suffix.lower() == ".npy":
        if array is not None:
            raise ArgumentError(f"input {name} holds one array; leave out {PART}{array}.")
        with _opened(file) as stream:
            header = read_header(stream)
            _require_pictures(name, header)
            require_bytes(header, stream.seek(0, os.SEEK_END) - header.size)
            stream.seek(header.size)
            if "://" not in path and not header.fortran:
                count = header.shape[0]
                reader = RowReader(os.path.abspath(path), header)
                keys, places = _positions(count), partial(_row_of, path)
                return Records(name, keys, range(count), reader, (path,), positional=True, places=places)
            pictures, place = read_values(header, stream.read), path
    else:
        with _opened(file) as stream, zipfile.ZipFile(stream) as members:
            array, pictures = _read_member(name, members, array)
            place = f"{path}{PART}{array}"
    places = partial(_position_in, place)
    keys, rows = _positions(len(pictures)), _Rows(pictures)
    return Records(name, keys, rows, picture_of, (path,), positional=True, places=places)


def _row_of(path: str, index: int) -> str | None:
    return row_place((path, index))


def _position_in(place: str, locator: tuple[int, np.ndarray]) -> str | None:
    return row_place((place, locator[0]))


def _positions(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def _opened(file: AnyPath) -> IO[bytes]:
    return open(file, "rb") if not is_remote(file) else io.BytesIO(file.read_bytes())


def _read_member(name: str, members: zipfile.ZipFile, array: str | None) -> tuple[str, np.ndarray]:
    """An array of pictures and its name."""
    found = [member for member in members.infolist() if member.filename.endswith(".npy")]
    names = [member.filename.removesuffix(".npy") for member in found]
    if array is None:
        array = _only(name, names)
    if names.count(array) != 1:
        raise ArgumentError(f"input {name} holds {names.count(array)} arrays called {array!r}, of {_some(names)}.")
    member = found[names.index(array)]
    if member.flag_bits & 1:
        raise ValueError(f"its array {array!r} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its array {array!r} is compressed by another method than NumPy's")
    if member.file_size > member.compress_size * MOST_COMPRESSED:
        raise ValueError(f"its array {array!r} claims {member.file_size} bytes in {member.compress_size}")
    with members.open(member) as stream:
        header = read_header(stream)
        _require_pictures(name, header)
        require_bytes(header, member.file_size - header.size)
        return array, read_values(header, _whole(stream))


def _whole(stream: IO[bytes]) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        data = stream.read()  # to the end, where its checksum is compared
        if len(data) != size:
            raise ValueError(f"it ends early: {len(data)} of {size} bytes are there")
        return data

    return read


def _only(name: str, names: Sequence[str]) -> str:
    """The array that is meant where none is named."""
    if len(names) == 1:
        return names[0]
    called = [known for known in NAMES if known in names]
    if len(called) == 1:
        return called[0]
    remedy = f"say which one is meant: {name}{PART}{(called or list(names) or NAMES)[0]}"
    if called:
        raise ArgumentError(f"input {name} holds arrays called {' and '.join(called)}; {remedy}.")
    raise ArgumentError(f"input {name} holds the arrays {_some(names)}, and none is called {NAMES[0]!r}; {remedy}.")


def _some(names: Iterable[str]) -> str:
    return f"{list(Counter(names))[:10]}"


def _require_pictures(name: str, header: Header) -> None:
    shape = header.shape
    if 0 in shape:
        raise ArgumentError(f"input {name} holds an array of shape {shape}, in which there is no picture.")
    if not header.is_uint8 or len(shape) not in (2, 3, 4) or not header.values:
        raise ArgumentError(
            f"input {name} holds an array of dtype {_dtype_name(header.dtype)} and shape {shape}; pictures must be "
            "uint8 [N, H, W] or [N, H, W, channels], with values 0..255."
        )
    if problem := misread(shape):
        raise ArgumentError(f"input {name} holds an array of shape {shape}: {problem}, and save that.")


def _dtype_name(written: str) -> str:
    try:
        return np.dtype(written).name
    except (TypeError, ValueError):
        return repr(written[:50])


def holds_pictures(path: str) -> bool:
    """Whether an array file that lies among pictures holds such itself: not features of them, or labels."""
    file = to_path(path)
    try:
        if file.suffix.lower() == ".npy":
            with file.open("rb") as stream:
                return _are_pictures(read_header(stream))
        with file.open("rb") as stream, zipfile.ZipFile(stream) as members:
            for member in members.namelist():
                with members.open(member) as array:
                    if member.endswith(".npy") and _are_pictures(read_header(array)):
                        return True
    except Exception:  # damaged or locked: it cannot be asked
        return False
    return False


def _are_pictures(header: Header) -> bool:
    return header.is_uint8 and len(header.shape) in (3, 4) and header.values > 0


def _is_array_file(name: str) -> bool:
    return to_path(name).suffix.lower() in (".npy", ".npz")


ARRAYS = SourceKind(
    wording=".npy/.npz arrays",
    read=open_arrays,
    is_file=_is_array_file,
    noun="a NumPy array",
    read_part=open_arrays,
)
