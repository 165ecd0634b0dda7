"""Lists of paths as plain text, a path in a line, and as JSON Lines, an object in a line."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jepa_jax.images.sources.csv_table import text_of
from jepa_jax.paths import AnyPath


def read_lines(file: AnyPath) -> list[str | None]:
    """A path in each line, as it is; an empty line, but for the last, is a row without one.

    Raises:
        ValueError: it is no UTF-8 text.
    """
    return [line or None for line in _lines(file)]


def read_json_lines(file: AnyPath) -> tuple[list[str], list[Sequence[str | None]]]:
    """Names and columns of objects; where one has no such name, or null, there is nothing.

    Raises:
        ValueError: a line is no object, or has something else than text or a whole number under a name.
    """
    rows = []
    for number, line in enumerate(_lines(file), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no object, with names and values, but {line[:100]!r}")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[row.get(name) for row in rows] for name in names]


def texts(name: str, values: Sequence[object]) -> list[str | None]:
    """A column's values as text.

    Raises:
        ValueError: one is neither text, a whole number, nor nothing.
    """
    for number, value in enumerate(values, start=1):
        if isinstance(value, bool) or not isinstance(value, str | int | None):
            raise ValueError(f"line {number} has {json.dumps(value)[:100]} under {name!r}, where text must be")
    return [None if value is None else str(value) for value in values]


def _lines(file: AnyPath) -> list[str]:
    lines = text_of(file.read_bytes()).replace("\r\n", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines
