"""CSV as text, read in the one way that it can be read, or refused."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.folder import is_image
from jepa_jax.images.sources.names import text_key
from jepa_jax.paths import AnyPath

OTHER_SEPARATORS = (";", "\t", "|")
"""What spreadsheets write in place of commas."""


def read_csv(file: AnyPath, known: Sequence[str]) -> tuple[list[str], list[Sequence[str]]]:
    """Names and columns, every value as the text it is: 0010 is no number.

    A first row that is a path is no row of names: a table of one column may do without that row, and is then called
    by the first of the ``known`` names.

    Args:
        file: the table.
        known: names of a column of paths, which tell a row of names from others.

    Raises:
        ArgumentError: it could be read in two ways; both are named.
        ValueError, csv.Error: it is damaged.
    """
    text = text_of(file.read_bytes())
    rows = _rows(text, _separator(file, text, known))
    if not rows:
        return [], []
    names, *body = rows
    names = [name.strip() for name in names]
    if len(names) == 1 and not _is_header(file, names[0], [row[0] for row in body], known):
        names, body = [known[0]], rows
    elif len(names) > 1 and (path := next(filter(_looks_like_a_path, names), None)):
        raise ArgumentError(
            f"input {file} has the path {text_key(path)!r} in its first row, which must name the columns: write "
            f"such a row above it, with {known[0]!r} for the paths."
        )
    for row in body:
        if len(row) != len(names):
            raise ValueError(f"the first row has {len(names)} columns, and {','.join(row)[:100]!r} has {len(row)}")
    columns: list[Sequence[str]] = list(zip(*body, strict=True))
    return names, columns or [()] * len(names)


def text_of(content: bytes) -> str:
    """A file's text.

    Raises:
        ValueError: it is no UTF-8.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content:
        raise ValueError("it is no UTF-8 text but UTF-16 or binary; save it as UTF-8")
    return content.decode("utf-8-sig")


def _rows(text: str, separator: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if row]


def _separator(file: AnyPath, text: str, known: Sequence[str]) -> str:
    """What separates the columns, by the first row.

    Raises:
        ArgumentError: it may be one column, or several.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    if len(_cells(first, ",")) > 1:
        return ","
    for separator in OTHER_SEPARATORS:
        cells = _cells(first, separator)
        if any(name in known for name in cells) and len(cells) > 1:
            return separator
        if len(cells) > 1:
            raise ArgumentError(
                f"input {file} begins with {text_key(first[:100])!r}: one column without a name, or several separated "
                f"by {separator!r}. Separate columns with commas and name them in the first row, {known[0]!r} for "
                "the paths."
            )
    return ","


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _is_header(file: AnyPath, first: str, others: Sequence[str], known: Sequence[str]) -> bool:
    """Whether the first row of a table of one column is its name, and not the first path.

    Raises:
        ArgumentError: it may be either.
    """
    if first in known:
        return True
    if _looks_like_a_path(first) or _is_file(file, first):
        return False
    if not re.search(r"[/\\.]", first) and all(map(_looks_like_a_path, filter(None, others))):
        return True
    raise ArgumentError(
        f"input {file} begins with {text_key(first[:100])!r}: the name of its one column, or the first path. Write "
        f"{known[0]!r} as its first row."
    )


def _looks_like_a_path(text: str) -> bool:
    return is_image(text) or "://" in text


def _is_file(file: AnyPath, path: str) -> bool:
    folder = str(file.parent)
    return "://" not in folder and len(path) < 4096 and os.path.isfile(os.path.join(folder, path))
