"""A Parquet or CSV table, text or JSON Lines that list the paths of images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from jepa_jax.errors import ArgumentError, ImageError
from jepa_jax.images.sources.csv_table import read_csv
from jepa_jax.images.sources.folder import is_image
from jepa_jax.images.sources.kind import PART, SourceKind
from jepa_jax.images.sources.places import file_place
from jepa_jax.images.sources.records import Records, Unusable, read_file, text_key, unique_records
from jepa_jax.images.sources.remote import HERE, local_path, require_readable, scheme_of
from jepa_jax.images.sources.text_lists import read_json_lines, read_lines, texts
from jepa_jax.images.sources.videos import PACKAGE, is_video, open_video
from jepa_jax.paths import AnyPath, to_path

PATH_COLUMNS = ("path", "file", "file_name", "filename", "filepath", "image_path", "image")
"""Names of the column that holds the paths; a table of one column needs none."""

KEY_COLUMN = "key"

MOST_FOLDERS = 16
"""Folders that are looked for; of more, the folders that they lie in."""

AWAY = 0.1
"""Share of a list in one folder that is not there: less are images that are missing, more is a disk that is away."""

LARGEST_LABELS = 2**26
"""Bytes of a table among pictures that is looked into: a larger one is taken for their labels."""

Column = Sequence[str | None]


def open_listing(name: str, files: Sequence[str], column: str | None = None) -> Records:
    """The images that a table lists, in its order; or videos, where it lists no image.

    Relative paths start at the table's own folder; paths with a scheme are read through fsspec. The key is the row's
    ``key`` where the table has that column, and else its path as it is written.

    Args:
        name: what the user called the input.
        files: the one table.
        column: the one that holds the paths, where several could.

    Raises:
        ArgumentError: the table cannot be read or could be read in two ways, has no column of paths, or no row.
    """
    (path,) = files
    file = to_path(path)
    folder = str(file.parent)
    paths, keys = _READERS[file.suffix.lower()](name, file, column)
    if not paths:
        raise ArgumentError(f"input {name} lists no path.")
    _require_schemes(name, paths)
    unique, locators = unique_records(
        (text_key(key or f"row {row}"), locate(folder, entry))
        for row, (key, entry) in enumerate(zip(keys, paths, strict=True))
    )
    _require_folders(name, locators)
    records = Records(name, unique, locators, read_file)
    named = [locator for locator in locators if isinstance(locator, str)]
    if any(map(is_video, named)) and not any(map(is_image, named)):
        PACKAGE.require()
        return replace(records, reader=open_video, file_of=file_place, videos=True)
    return records


def _from_csv(name: str, file: AnyPath, column: str | None) -> tuple[Column, Column]:
    names, columns = read_csv(file, PATH_COLUMNS if column is None else (column,))
    paths, keys = _chosen(name, names, column)
    at = names.index
    return columns[at(paths)], columns[at(keys)]


def _from_lines(name: str, file: AnyPath, column: str | None) -> tuple[Column, Column]:
    if column is not None:
        raise ArgumentError(f"input {name}: text has a path in each line, and no columns; leave out {PART}{column}.")
    paths = read_lines(file)
    return paths, paths


def _from_json_lines(name: str, file: AnyPath, column: str | None) -> tuple[Column, Column]:
    names, columns = read_json_lines(file)
    if not names:
        return [], []
    paths, keys = (texts(wanted, columns[names.index(wanted)]) for wanted in _chosen(name, names, column))
    return paths, keys


def _from_parquet(name: str, file: AnyPath, column: str | None) -> tuple[Column, Column]:
    # Imported here: this module is loaded in worker processes, which need no Arrow.
    import pyarrow as pa

    from jepa_jax.parquet import open_parquet

    table = open_parquet(file)
    schema = table.schema_arrow
    paths, keys = _chosen(name, schema.names, column)
    for wanted in (paths, keys):
        kind = schema.field(wanted).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (is_text_type(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise ArgumentError(f"input {name}: its column {wanted!r} is of type {kind}; paths and keys must be text.")
    read = table.read(columns=list({paths, keys}))
    texts = {wanted: read[wanted].cast(pa.large_string()).to_pylist() for wanted in read.column_names}
    return texts[paths], texts[keys]


def is_text_type(kind: Any) -> bool:
    """Whether a column's type is text."""
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _chosen(name: str, names: Sequence[str], column: str | None) -> tuple[str, str]:
    """The columns of the paths and of the keys, which may be the same.

    Raises:
        ArgumentError: there is none, or another one could be meant as well.
    """
    if not names:
        raise ArgumentError(f"input {name} is empty: it has no columns.")
    if column is None:
        known = [known for known in PATH_COLUMNS if known in names] or (list(names) if len(names) == 1 else [])
        if not known:
            shown = ", ".join(map(text_key, names[:20]))
            raise ArgumentError(
                f"input {name} has the columns {shown}; none is called {', '.join(PATH_COLUMNS)}. The first row must "
                f"name them; where another holds the paths, give {name}{PART}COLUMN."
            )
        if len(known) > 1:
            raise ArgumentError(
                f"input {name} has the columns {' and '.join(known)}, and each could hold the paths; say which one: "
                f"{name}{PART}{known[0]}."
            )
        column = known[0]
    keys = KEY_COLUMN if KEY_COLUMN in names else column
    for wanted in (column, keys):
        if (count := list(names).count(wanted)) != 1:
            shown = ", ".join(map(text_key, names[:20]))
            raise ArgumentError(f"input {name} has {count} columns called {wanted!r}, of {shown}; it must have one.")
    return column, keys


def lists_others(path: str, known: frozenset[str]) -> bool:
    """Whether a table among pictures is of further ones: it holds them, or names files that are none of these.

    Args:
        path: of the table.
        known: names of the pictures, without their folders.
    """
    file = to_path(path)
    try:
        small = file.stat().st_size <= LARGEST_LABELS
        if file.suffix.lower() == ".csv":
            names, columns = read_csv(file, PATH_COLUMNS) if small else ([], [])
            paths = [column for name, column in zip(names, columns, strict=True) if name in PATH_COLUMNS]
        else:
            from jepa_jax.parquet import read_parquet, read_schema

            schema = read_schema(file)
            if any(_holds_bytes(field.type) for field in schema):
                return True
            names = [name for name in schema.names if name in PATH_COLUMNS and is_text_type(schema.field(name).type)]
            paths = [column.to_pylist() for column in read_parquet(file, names).columns] if names and small else []
    except Exception:  # damaged, or no list at all
        return False
    listed = (value for values in paths for value in values if value and (is_image(value) or "://" in value))
    return any(known.isdisjoint((name := value.rpartition("/")[2], unquote(name))) for value in listed)


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _require_schemes(name: str, paths: Iterable[str | None]) -> None:
    """Raise ArgumentError where paths of a scheme cannot be read here: before work begins."""
    examples: dict[str, str] = {}
    for path in paths:
        if path and "://" in path and (scheme := scheme_of(path)):
            examples.setdefault(scheme if "::" not in path else path, path)
    for path in examples.values():
        try:
            require_readable(path)
        except ArgumentError as error:
            raise ArgumentError(f"input {name} lists {text_key(path)}: {error}") from error


def locate(folder: str, path: str | None) -> str | Unusable:
    """Where a path leads that is written in a table: relative ones start at the table's folder."""
    if not path:
        return Unusable("the list has no path in this row")
    scheme = scheme_of(path)
    if scheme in HERE and "::" not in path:
        try:
            return local_path(path)
        except ImageError as error:
            return Unusable(str(error))
    return scheme + path[len(scheme) :] if scheme else os.path.join(folder, path)


def _require_folders(name: str, locators: Iterable[str | Unusable]) -> None:
    """Raise ArgumentError where a folder is not there that much of the list is in, as if its disk were away."""
    local = [locator for locator in locators if isinstance(locator, str) and not scheme_of(locator)]
    folders = Counter(os.path.dirname(path) or "." for path in local)
    while len(folders) > MOST_FOLDERS:
        above: Counter[str] = Counter()
        for folder, count in folders.items():
            above[os.path.dirname(folder) or "."] += count
        folders = above
    for folder, count in folders.items():
        if count > 1 and count >= AWAY * len(local) and not os.path.isdir(folder):
            raise ArgumentError(
                f"input {name} lists {count} of its {len(local)} paths in {text_key(folder)}, which is not there. "
                "Bring that folder back, or take its rows out of the list; relative paths start at the list's folder."
            )


def is_table(name: str) -> bool:
    """Whether a file has columns, by its name: among pictures, text is no list of further ones."""
    return to_path(name).suffix.lower() in (".parquet", ".csv")


def _is_list(name: str) -> bool:
    return to_path(name).suffix.lower() in (".csv", ".txt", ".jsonl")


_READERS: dict[str, Callable[[str, AnyPath, str | None], tuple[Column, Column]]] = {
    ".parquet": _from_parquet,
    ".csv": _from_csv,
    ".txt": _from_lines,
    ".jsonl": _from_json_lines,
}

LISTING = SourceKind(
    wording="a .parquet, .csv, .jsonl or .txt list of paths",
    read=open_listing,
    is_file=_is_list,
    noun="a list",
    read_part=open_listing,
)
