"""A Parquet or CSV table that lists the paths of images."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence

from etils import epath

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.kind import SourceKind
from jepa_jax.images.sources.records import Records, Unusable, read_file, text_key, unique_records

PATH_COLUMNS = ("path", "file", "file_name", "filename", "filepath", "image_path", "image")
"""Names of the column that holds the paths, in order of preference; a table of one column needs none."""

KEY_COLUMN = "key"


def open_listing(name: str, files: Sequence[str]) -> Records:
    """The images that a table lists, in its order.

    Relative paths start at the table's own folder. The key is the row's ``key`` where the table has that
    column, and else its path as it is written.

    Raises:
        ArgumentError: the table cannot be read, has no column of paths, or no row.
    """
    # Imported here: this module is loaded in worker processes, which need no Arrow.
    import pyarrow as pa

    from jepa_jax.parquet import read_parquet

    (path,) = files
    file = epath.Path(path)
    try:
        if file.suffix.lower() == ".parquet":
            table = read_parquet(file)
        else:
            names, columns = _read_csv(file)
            table = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], names)
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        raise ArgumentError(f"input {name} cannot be read as a table: {error}") from error
    column = next((name for name in PATH_COLUMNS if name in table.column_names), None)
    if column is None and len(table.column_names) == 1:
        column = table.column_names[0]
    if column is None:
        raise ArgumentError(
            f"input {name} has the columns {', '.join(table.column_names)}; none is called {', '.join(PATH_COLUMNS)}."
        )
    if not table.num_rows:
        raise ArgumentError(f"input {name} lists no path.")
    try:
        paths = table[column].cast(pa.string()).to_pylist()
        keys = table[KEY_COLUMN].cast(pa.string()).to_pylist() if KEY_COLUMN in table.column_names else paths
    except pa.ArrowException as error:
        raise ArgumentError(f"input {name}: the columns of paths and keys must be text: {error}") from error
    folder = os.fspath(file.parent)
    unique, locators = unique_records(
        (text_key(key or f"row {row}"), _locate(folder, entry))
        for row, (key, entry) in enumerate(zip(keys, paths, strict=True))
    )
    return Records(name, unique, locators, read_file)


def _read_csv(file: epath.Path) -> tuple[list[str], list[tuple[str, ...]]]:
    """Names and columns, every value as the text it is: 0010 is no number."""
    text = io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")
    names, *rows = [row for row in csv.reader(text, strict=True) if row] or [[]]
    for row in rows:
        if len(row) != len(names):
            raise ValueError(f"the first row has {len(names)} columns, and {','.join(row)[:100]!r} has {len(row)}")
    return names, list(zip(*rows, strict=True)) or [()] * len(names)


def _locate(folder: str, path: str | None) -> str | Unusable:
    if not path:
        return Unusable("the list has no path in this row")
    return path if "://" in path else os.path.join(folder, path)


def _is_table(name: str) -> bool:
    return epath.Path(name).suffix.lower() in (".parquet", ".csv")


LISTING = SourceKind(wording="a .parquet or .csv list of paths", read=open_listing, is_file=_is_table)
