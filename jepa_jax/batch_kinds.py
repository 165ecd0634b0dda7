"""The kinds of batch that engines pass: mappings of columns, pandas DataFrames, Arrow tables; and back.

Each kind can give a column and can be joined with columns of scores, which are an Arrow table. Neither pandas nor
`datasets` is imported here: a batch of theirs brings its library along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from jepa_jax.errors import ArgumentError

Keep = bool | Sequence[str]
"""Which columns of a batch stay: all, none, or those of these names."""


class Batch(Protocol):
    """Columns of equal length, a row for each picture."""

    @property
    def names(self) -> list[str]:
        """Of the columns, in their order."""
        ...

    def cells(self, name: str) -> Sequence[Any]:
        """One column, a cell for each row."""
        ...

    def joined(self, kept: Sequence[str], scores: pa.Table) -> Any:
        """Some of the columns and all of the scores', as a batch of the same kind."""
        ...


def batch_of(batch: Any) -> Batch:
    """What an engine passed, whatever its kind.

    Raises:
        ArgumentError: it is of no known kind, or its columns are of several lengths.
    """
    if isinstance(batch, pa.Table):
        return _Arrow(batch)
    table: Any = getattr(batch, "pa_table", None)
    if isinstance(table, pa.Table):
        return _Arrow(table.replace_schema_metadata(None), formatted=batch)
    if isinstance(batch, Mapping):
        lists = list | tuple | np.ndarray | pa.Array | pa.ChunkedArray
        lengths = {name: len(column) for name, column in batch.items() if isinstance(column, lists)}
        if len(set(lengths.values())) > 1:
            raise ArgumentError(
                f"batch has columns of several lengths, {lengths}; give each row a cell in every column."
            )
        return _Columns(batch)
    if hasattr(batch, "assign") and hasattr(batch, "columns"):
        return _Frame(batch)
    raise ArgumentError(
        f"batch is a {type(batch).__name__}; give a dict of columns, a pandas DataFrame or a pyarrow Table "
        "(datasets.map: with batched=True)."
    )


def kept_columns(batch: Batch, keep: Keep, added: Sequence[str]) -> list[str]:
    """The columns that stay beside those that are added.

    Raises:
        ArgumentError: one is not there, or is called as one that is added.
    """
    names = batch.names
    kept = names if keep is True else [] if keep is False else list(keep)
    if absent := [name for name in kept if name not in names]:
        raise ArgumentError(f"keep has {absent}, and the batch has the columns {names}; name some of these.")
    if taken := [name for name in kept if name in added]:
        rest = [name for name in kept if name not in taken]
        raise ArgumentError(f"the batch has columns {taken}, as the scores have; rename them, or give keep={rest}.")
    return kept


@dataclass(frozen=True)
class _Columns:
    """A mapping of lists (`datasets`) or arrays (Ray Data). Scores come as lists, if all columns are lists.

    As arrays, numbers are masked where there is none (NaN lies below), and text is of dtype object.
    """

    columns: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    def cells(self, name: str) -> Sequence[Any]:
        column = self.columns[name]
        if isinstance(column, pa.Array | pa.ChunkedArray):
            return _arrow_cells(column)
        if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__len__"):
            raise ArgumentError(
                f"the column {name!r} is a {type(column).__name__}, and no array or list with a picture for each row; "
                "give batches (datasets.map: with batched=True; Ray Data: map_batches)."
            )
        return column

    def joined(self, kept: Sequence[str], scores: pa.Table) -> dict[str, Any]:
        as_lists = all(isinstance(column, list | tuple) for column in self.columns.values())
        convert = pa.ChunkedArray.to_pylist if as_lists else _numpy_column
        found = {name: convert(scores[name]) for name in scores.column_names}
        return {name: self.columns[name] for name in kept} | found


@dataclass(frozen=True)
class _Frame:
    """A pandas DataFrame, whose index stays."""

    frame: Any

    @property
    def names(self) -> list[str]:
        return list(self.frame.columns)

    def cells(self, name: str) -> Sequence[Any]:
        return self.frame[name].to_numpy()

    def joined(self, kept: Sequence[str], scores: pa.Table) -> Any:
        columns = {name: scores[name].to_pandas() for name in scores.column_names if name != "log_volume_rank"}
        columns["log_volume_rank"] = scores["log_volume_rank"].to_pandas(integer_object_nulls=True).astype("Int32")
        ordered = {name: columns[name].set_axis(self.frame.index) for name in scores.column_names}
        return self.frame[list(kept)].assign(**ordered)


@dataclass(frozen=True)
class _Arrow:
    """An Arrow table: that of an engine, or the one behind a batch of `datasets`, whose pictures are not decoded yet.

    `datasets` would decode them before they are looked at, stop at a damaged one, and encode them again, with loss,
    for its cache.

    Attributes:
        table: the columns.
        formatted: the same columns as `datasets` shows them: arrays, where so many numbers lie in lists.
    """

    table: pa.Table
    formatted: Mapping[str, Any] | None = None

    @property
    def names(self) -> list[str]:
        return self.table.column_names

    def cells(self, name: str) -> Sequence[Any]:
        column = self.table[name]
        if self.formatted is not None and (pa.types.is_nested(column.type) and not pa.types.is_struct(column.type)):
            return self.formatted[name]
        return _arrow_cells(column)

    def joined(self, kept: Sequence[str], scores: pa.Table) -> pa.Table:
        schema = pa.schema([*map(self.table.schema.field, kept), *scores.schema], metadata=self.table.schema.metadata)
        return pa.Table.from_arrays([*map(self.table.column, kept), *scores.columns], schema=schema)


def _arrow_cells(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The cells as Python's own objects; tensors, of Arrow, Ray or `datasets`, as arrays."""
    cells: list[Any] = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        if not isinstance(chunk, pa.ExtensionArray):
            cells += chunk.to_pylist()
        elif len(chunk):
            arrays = chunk.to_numpy_ndarray() if hasattr(chunk, "to_numpy_ndarray") else chunk.to_numpy(False)
            missing = np.asarray(chunk.is_null())
            cells += [None if missing[i] else arrays[i] for i in range(len(chunk))]
    return cells


def _numpy_column(column: pa.ChunkedArray) -> np.ndarray:
    """A column of scores as an array [n] or [n, K]."""
    array = column.combine_chunks()
    missing = np.asarray(array.is_null())
    if pa.types.is_string(array.type):
        return np.array(array.to_pylist(), object)
    dtype = array.type.value_type if pa.types.is_fixed_size_list(array.type) else array.type
    shape = (len(array), array.type.list_size) if pa.types.is_fixed_size_list(array.type) else (len(array),)
    values = np.full(shape, np.nan if pa.types.is_floating(dtype) else 0, dtype.to_pandas_dtype())
    present = array.drop_null()
    flat = present.flatten() if len(shape) == 2 else present
    values[~missing] = flat.to_numpy(zero_copy_only=False).reshape(-1, *shape[1:])
    if not missing.any():
        return values
    mask = np.broadcast_to(missing.reshape(-1, *(1 for _ in shape[1:])), shape)
    return np.ma.masked_array(values, mask.copy())
