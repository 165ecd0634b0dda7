"""Parquet files, local or remote."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from jepa_jax.paths import AnyPath, is_remote, patiently, read_bytes

Result = TypeVar("Result")


def read_parquet(path: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    """One file as a table, or some of its columns; a name that it lacks is left out."""
    return open_parquet(path).read(columns=None if columns is None else list(columns))


def open_parquet(path: AnyPath) -> pq.ParquetFile:
    """One file in memory, of which the schema is read.

    The bytes are copied into Arrow's own memory, because Arrow's threads may hold them for a moment longer than this
    call lasts. Were they Python's, a program that ends in that moment would be aborted ("terminate called without
    an active exception", apache/arrow issue 34314) and not exit with its status: of the shortest, one in five was.
    """
    memory = pa.BufferOutputStream()
    memory.write(read_bytes(path))
    return pq.ParquetFile(pa.BufferReader(memory.getvalue()))


def read_schema(path: AnyPath) -> pa.Schema:
    """Names and types of the columns, from the footer alone."""
    return _opened(path, lambda file: file.schema_arrow)


def read_footer(path: AnyPath) -> pq.FileMetaData:
    """What a file says of itself, such as its number of rows and its metadata; its columns are not read."""
    return _opened(path, lambda file: file.metadata)


def _opened(path: AnyPath, look: Callable[[pq.ParquetFile], Result]) -> Result:
    def read() -> Result:
        with path.open("rb") as stream:
            return look(pq.ParquetFile(stream))

    return patiently(read) if is_remote(path) else read()


def parquet_bytes(table: pa.Table) -> bytes:
    """The file that holds a table, compressed."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
