"""ArrayRecord files whose records are encoded images. Those that TFDS wrote are opened as ``tfds:DIR/SPLIT``."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from jepa_jax.errors import ArgumentError, ImageError
from jepa_jax.images.sources.kind import Package, SourceKind
from jepa_jax.images.sources.places import Rows, row_place
from jepa_jax.images.sources.records import Records


@dataclass(frozen=True)
class ArrayRecordReader:
    """From a record's index to its bytes; each process opens the files once."""

    files: tuple[str, ...]

    def __call__(self, index: int) -> bytes:
        """The record's bytes.

        Raises:
            ImageError: they are not there.
        """
        return whole(_data_source(self.files)[index])


def whole(content: bytes | None) -> bytes:
    """A record's content; of damaged files ArrayRecord may give None."""
    if not isinstance(content, bytes):
        raise ImageError("the record is not there: its file is damaged")
    return content


@functools.lru_cache(maxsize=4)
def _data_source(files: tuple[str, ...]) -> Any:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource(list(files))


def open_array_record(name: str, files: Sequence[str]) -> Records:
    """The records of one or more files; the key is the record's number over all files, from 0.

    Raises:
        ArgumentError: a file cannot be read, or all are empty.
    """
    for opened in (_data_source, _ends):  # since this process read them last, other files may have taken their places
        opened.cache_clear()
    reader = ArrayRecordReader(tuple(files))
    count = len(_data_source(reader.files))
    if not count:
        raise ArgumentError(f"input {name} holds no record.")
    places = NumberIn(reader.files)
    keys = [str(i) for i in range(count)]
    return Records(name, keys, range(count), reader, reader.files, positional=True, places=places)


@dataclass(frozen=True)
class NumberIn:
    """From a record's number over all files to its place: the file, and its number there."""

    files: tuple[str, ...]

    def __call__(self, index: int) -> str | None:
        """``/full/path.array_record::NUMBER``."""
        return row_place(Rows(self.files, _ends(self.files))[index])


@functools.lru_cache(maxsize=4)
def _ends(files: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(accumulate(len(_data_source((file,))) for file in files))


def _is_array_record(name: str) -> bool:
    return bool(re.search(r"\.(array_record|arrayrecord)(-\d+-of-\d+)?$", name))


ARRAY_RECORD = SourceKind(
    wording=".array_record",
    read=open_array_record,
    is_file=_is_array_record,
    several=True,
    package=Package("array_record", "ArrayRecord files"),
    noun="ArrayRecord",
)
