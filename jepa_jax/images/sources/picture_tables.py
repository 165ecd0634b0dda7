"""Parquet tables that hold pictures themselves, as Hugging Face's data sets do; those that list paths are lists."""

from __future__ import annotations

import functools
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any, cast

from jepa_jax.errors import ArgumentError, JepaJaxError
from jepa_jax.images.reasons import of_the_machine, sentence
from jepa_jax.images.sources.image_columns import holds_pictures, image_column, key_column, picture_in
from jepa_jax.images.sources.kind import PART, SourceKind
from jepa_jax.images.sources.listing import LISTING
from jepa_jax.images.sources.places import Rows, row_place
from jepa_jax.images.sources.records import Records, text_key, unique_records
from jepa_jax.images.sources.rows_read_ahead import RowsReadAhead

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH = 2**23
"""Bytes of rows that are read at once, about (8 MiB)."""

MOST_OPEN = 2
"""Tables that a process keeps open."""

FOOTERS_AT_ONCE = 16
"""Footers of remote tables that are asked for at the same time."""


@dataclass(frozen=True)
class CellReader:
    """From a file and the number of a row in it to the encoded picture there; picklable.

    Each thread keeps some files open, and of each the rows that it read last.

    Attributes:
        column: of the pictures.
    """

    column: str

    def __call__(self, locator: tuple[str, int]) -> bytes:
        """The encoded picture.

        Raises:
            ImageError: the row has none, or its file is damaged.
            OSError: it cannot be read.
        """
        path, row = locator
        cell = _OPEN.get(path, self.column)[row]
        return picture_in(cell, path.rpartition("/")[0] or ".")


@dataclass(frozen=True)
class _Footer:
    """What is known of a file before any picture is read."""

    schema: pa.Schema
    rows: int


def open_parquet_input(name: str, files: Sequence[str], column: str | None = None) -> Records:
    """The pictures of Parquet tables, in the files' order; one file without pictures is a list of paths.

    The key is the row's ``key`` where the tables have that column, and else ``FILE/ROW``, the row's number in its file
    from 0; of a folder or a pattern the file's name stands before a ``key`` too. Footers alone are read here, and the
    keys. Pictures are read as they are stored: a feature's ``mode`` is not applied.

    Args:
        name: what the user called the input.
        files: the tables.
        column: of the pictures, where several could be.

    Raises:
        ArgumentError: a table cannot be read or could be read in two ways, or holds no picture.
    """
    read = _footer if len(files) == 1 else functools.partial(_require_footer, name)
    footers: list[_Footer] = _of_each(read, files)
    chosen = image_column(name, footers[0].schema, column)
    if chosen is None:
        if len(files) == 1:
            return LISTING.open(name, files, column)
        raise ArgumentError(
            f"input {text_key(name)}: {text_key(files[0])} has no column of pictures; lists of paths are given one by "
            "one."
        )
    for file, footer in zip(files, footers, strict=True):
        if not holds_pictures(footer.schema, chosen):
            raise ArgumentError(f"input {text_key(name)}: {text_key(file)} has no column {chosen!r} of pictures.")
    locators = Rows(tuple(files), tuple(accumulate(footer.rows for footer in footers)))
    if not len(locators):
        raise ArgumentError(f"input {text_key(name)} holds no record.")
    by_key = key_column(name, footers[0].schema)
    keys: list[str] = []
    for label, file, footer in zip(labels(name, files), files, footers, strict=True):
        if by_key is None:
            keys += [f"{label}/{row}" for row in range(footer.rows)]
        else:
            prefix = "" if _is_itself(name, file) else f"{label}/"
            keys += [
                f"{label}/{row}" if key is None else prefix + text_key(key)
                for row, key in enumerate(_keys(name, file, by_key, footer.rows))
            ]
    records = Records(name, keys, locators, CellReader(chosen), tuple(files), places=row_place)
    if by_key is None:
        return replace(records, positional=True)
    unique, found = unique_records(zip(keys, locators, strict=True))
    return replace(records, keys=unique, locators=found)


def labels(name: str, files: Sequence[str]) -> list[str]:
    """What stands before the keys of each file: its path below the folder, or below the innermost that holds all."""
    root = (name.rpartition(PART)[0] or name).rstrip("/") + "/"
    if not all(file.startswith(root) for file in files):
        folders = [file.split("/")[:-1] for file in files]
        shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
        root = "".join(f"{parts[0]}/" for parts in shared)
    return [text_key(file[len(root) :]) for file in files]


def _is_itself(name: str, file: str) -> bool:
    """Whether an input is the name of this file, and of no folder or pattern."""
    return name.rpartition("/")[2].partition(PART)[0] == file.rpartition("/")[2]


def is_picture_table(path: str) -> bool:
    """Whether a Parquet file holds pictures; one that cannot be read holds none."""
    return bool(_has_pictures(path))


def without_lists(paths: Sequence[str]) -> list[str]:
    """Parquet files, but for those that can be read and hold no picture."""
    return [path for path, has in zip(paths, _of_each(_has_pictures, paths), strict=True) if has is not False]


def _has_pictures(path: str) -> bool | None:
    try:
        schema = _footer(path).schema
    except Exception:  # damaged
        return None
    return any(holds_pictures(schema, column) for column in schema.names)


def _of_each(read: Callable[[str], Any], paths: Sequence[str]) -> list[Any]:
    if not any("://" in path for path in paths):
        return list(map(read, paths))
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        return list(pool.map(read, paths))


def _require_footer(name: str, path: str) -> _Footer:
    try:
        return _footer(path)
    except Exception as error:
        if of_the_machine(error):
            raise
        raise ArgumentError(f"input {text_key(name)}: {text_key(path)} cannot be read: {sentence(error)}.") from error


def _footer(path: str) -> _Footer:
    with _opened(path) as stream, _parquet(stream) as table:
        found = table.metadata
        groups = [found.row_group(group).num_rows for group in range(found.num_row_groups)]
        size = stream.size() if hasattr(stream, "size") and callable(stream.size) else stream.seek(0, os.SEEK_END)
        if min(groups, default=0) < 0 or sum(groups) != found.num_rows or found.num_rows > size:
            raise ValueError(f"its {size} bytes claim {found.num_rows} rows in groups of {groups[:5]}")
        return _Footer(table.schema_arrow, found.num_rows)


def _keys(name: str, path: str, column: str, rows: int) -> list[str | None]:
    import pyarrow as pa

    try:
        with _opened(path) as stream, _parquet(stream) as table:
            read = table.read(columns=[column], use_threads=False)[column]
            read.validate(full=True)
            keys = read.cast(pa.large_string()).to_pylist()
        if len(keys) != rows:
            raise ValueError(f"it holds {len(keys)} keys of {rows} rows")
    except JepaJaxError:
        raise
    except Exception as error:
        if of_the_machine(error):
            raise
        raise ArgumentError(
            f"input {text_key(name)}: the keys of {text_key(path)} cannot be read: {sentence(error)}."
        ) from error
    return keys


def _opened(path: str) -> Any:
    """A file, local ones by Arrow itself; of others, what is asked for is fetched, and not the whole."""
    if "://" in path:
        import fsspec

        return cast("Any", fsspec.open(path, "rb")).open()
    import pyarrow as pa

    return pa.OSFile(path)


def _parquet(stream: Any) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    # Through a buffer: a column of a group may be larger than memory.
    return pq.ParquetFile(stream, buffer_size=2**20, pre_buffer=False, page_checksum_verification=True)


class _Table:
    """An open file, and the rows of one of its columns that were read last."""

    def __init__(self, path: str, column: str):
        self._path, self._column = path, column
        self._stream = _opened(path)
        self._file = _parquet(self._stream)
        found = self._file.metadata
        groups = range(found.num_row_groups)
        self._ends = list(accumulate(found.row_group(group).num_rows for group in groups))
        self._group, self._rows = -1, None

    def __getitem__(self, row: int) -> pa.Scalar:
        group = bisect_right(self._ends, row)
        start = self._ends[group - 1] if group else 0
        if self._rows is None or self._group != group:
            self._rows = RowsReadAhead(text_key(self._path), start, functools.partial(self._batches, group))
            self._group = group
        return self._rows[row - start]

    def _batches(self, group: int) -> Iterator[pa.Array]:
        if group >= len(self._ends):
            return
        found = self._file.metadata.row_group(group)
        columns = (found.column(i) for i in range(found.num_columns))
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == self._column)
        rows = max(1, min(1024, BATCH * max(1, found.num_rows) // max(1, size)))
        for batch in self._file.iter_batches(rows, row_groups=[group], columns=[self._column], use_threads=False):
            yield batch.column(batch.schema.get_field_index(self._column))

    def close(self) -> None:
        self._file.close()
        self._stream.close()


class _OpenTables(threading.local):
    """The calling thread's open tables: Arrow's files are no two threads' at once."""

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[str, str], _Table] = OrderedDict()

    def get(self, path: str, column: str) -> _Table:
        if (path, column) not in self._tables:
            self._tables[path, column] = _Table(path, column)
            while len(self._tables) > MOST_OPEN:
                self._tables.popitem(last=False)[1].close()
        self._tables.move_to_end((path, column))
        return self._tables[path, column]


_OPEN = _OpenTables()


def is_parquet(name: str) -> bool:
    """Whether a file is a Parquet table, by its name."""
    return name.lower().endswith(".parquet")


PICTURE_TABLES = SourceKind(
    wording=".parquet tables of images",
    read=open_parquet_input,
    is_file=is_parquet,
    several=True,
    noun="a Parquet table",
    read_part=open_parquet_input,
)
