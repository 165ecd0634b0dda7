"""Columns of an Arrow table as arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def matrix(table: pa.Table, column: str) -> np.ndarray | None:
    """A column of lists of one length as float32 [N, K]; NaN in a row that has none."""
    if column not in table.column_names:
        return None
    lists = table[column].combine_chunks()
    there = lists.is_valid().to_numpy(zero_copy_only=False)
    flat = lists.drop_null().flatten().to_numpy().astype(np.float32, copy=False)
    if not there.any():
        return None
    found = flat.reshape(int(there.sum()), -1)
    if there.all():
        return found
    rows = np.full((table.num_rows, found.shape[1]), np.nan, np.float32)
    rows[there] = found
    return rows


def intervals(table: pa.Table) -> np.ndarray | None:
    """Where exact scores lie, float64 [N, 2], of a table that says it."""
    ends = ("score_low", "score_high")
    if not all(end in table.column_names for end in ends):
        return None
    return np.stack([table[end].to_numpy().astype(np.float64) for end in ends], axis=1)


def flags(table: pa.Table, column: str) -> np.ndarray | None:
    """A column of truths as bool [N]; None where there is no such column."""
    if column not in table.column_names:
        return None
    return np.array([bool(value) for value in table[column].to_pylist()], bool)


def is_label(kind: pa.DataType) -> bool:
    """Whether records can be grouped by a column of this type."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)


def texts(column: pa.ChunkedArray) -> np.ndarray:
    """A column as text, object [N]."""
    return np.array([str(value) for value in column.to_pylist()], object)
