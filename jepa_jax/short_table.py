"""A few lines of a long table, as results print themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jepa_jax.errors import printable

MOST_ROWS = 10
"""Rows that are printed: all, or this many from both ends."""


def short_table(columns: Mapping[str, Sequence[Any] | np.ndarray], most: int = MOST_ROWS) -> str:
    """Columns of one length as text: numbers to the right, the row's number before each, what is left out as dots.

    Args:
        columns: name to values; none may be empty of columns.
        most: rows that are printed.
    """
    count = len(next(iter(columns.values())))
    if count <= most:
        rows: list[int | None] = list(range(count))
    else:
        rows = [*range(most // 2), None, *range(count - (most - most // 2), count)]
    header = ["", *columns]
    lines = [
        ["..." for _ in header] if row is None else [str(row), *(_text(values[row]) for values in columns.values())]
        for row in rows
    ]
    widths = [max(map(len, cells)) for cells in zip(header, *lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [header, *lines]
    )


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        small = value != 0 and abs(value) < 0.01
        return f"{value:.1e}" if small else f"{value:,.2f}"
    return printable(str(value))
