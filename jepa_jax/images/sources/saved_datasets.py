"""What Hugging Face's ``Dataset.save_to_disk`` leaves: Arrow files, mapped into memory and never read whole."""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from jepa_jax.errors import ArgumentError, ImageError, JepaJaxError
from jepa_jax.images.reasons import of_the_machine, sentence
from jepa_jax.images.sources.image_columns import image_column, key_column, picture_in
from jepa_jax.images.sources.kind import PART, SourceKind
from jepa_jax.images.sources.names import text_key
from jepa_jax.images.sources.places import Rows, row_place
from jepa_jax.images.sources.records import Records, unique_records

if TYPE_CHECKING:
    import pyarrow as pa

DATASET, DESCRIPTION, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"

END = b"\xff\xff\xff\xff\0\0\0\0"
"""The last bytes of a stream of Arrow tables."""

MOST_OPEN = 2
"""Files that a process keeps open."""


@dataclass(frozen=True)
class ArrowReader:
    """From a file and the number of a row in it to the encoded picture there; picklable.

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
        return picture_in(_OPEN.get(path).cell(self.column, row), os.path.dirname(path))


def open_saved_dataset(name: str, files: Sequence[str], part: str | None = None) -> Records:
    """The pictures of a saved data set, or of one split of several; the key is ``key`` or the row's number, from 0.

    Args:
        name: what the user called the input.
        files: the folder.
        part: the split, or the column of the pictures; both are ``DIR/SPLIT::COLUMN``.

    Raises:
        ArgumentError: it cannot be read, there are several splits or columns, or it holds no picture.
    """
    (folder,) = files
    if "://" in folder:
        raise ArgumentError(
            f"input {name} was written by save_to_disk, whose files are mapped into memory; copy it to this machine, "
            "or write it as Parquet (to_parquet)."
        )
    if not os.path.isfile(os.path.join(folder, SPLITS)):
        return _open_split(name, folder, part)
    splits = _json(os.path.join(folder, SPLITS)).get("splits")
    if not isinstance(splits, list) or not all(isinstance(split, str) and _is_a_name(split) for split in splits):
        raise ValueError(f"{SPLITS} names no splits")
    if part in splits:
        return _open_split(name, os.path.join(folder, str(part)), None)
    if len(splits) != 1:
        raise ArgumentError(
            f"input {text_key(name)} holds the splits {', '.join(map(text_key, splits))}; say which one is meant: "
            f"{text_key(folder)}{PART}{text_key(splits[0]) if splits else 'SPLIT'}, with a column "
            f"{text_key(folder)}/SPLIT{PART}COLUMN."
        )
    return _open_split(name, os.path.join(folder, splits[0]), part)


def _open_split(name: str, folder: str, column: str | None) -> Records:
    state = _json(os.path.join(folder, DATASET))
    if indices := [key for key, value in state.items() if key.startswith("_indices") and value]:
        raise ArgumentError(
            f"input {text_key(name)} was saved with a selection of its rows apart ({indices[0]}), by an old "
            "version of datasets: load it and save it again with the present one."
        )
    data = state.get("_data_files")
    named = [file.get("filename") for file in data if isinstance(file, dict)] if isinstance(data, list) else []
    names = [file for file in named if isinstance(file, str) and _is_a_name(file)]
    if not isinstance(data, list) or not names or len(names) < len(data):
        raise ValueError(f"{DATASET} names no files")
    files = [os.path.join(folder, file) for file in names]
    features = _json(os.path.join(folder, DESCRIPTION)).get("features")
    tables = [_opened(name, file) for file in files]
    schema = tables[0].schema
    chosen = image_column(name, schema, column, features if isinstance(features, dict) else None)
    if chosen is None:
        shown = ", ".join(map(text_key, schema.names[:20]))
        said = "no column of pictures" if column is None else f"no pictures in a column {column!r}"
        raise ArgumentError(f"input {text_key(name)} has {said}; its columns are {shown}.")
    if different := [file for file, table in zip(files, tables, strict=True) if not table.schema.equals(schema)]:
        raise ArgumentError(
            f"input {text_key(name)}: {text_key(different[0])} has other columns than {text_key(files[0])}."
        )
    locators = Rows(tuple(files), tuple(accumulate(table.rows for table in tables)))
    if not len(locators):
        raise ArgumentError(f"input {text_key(name)} holds no record.")
    keys = [str(row) for row in range(len(locators))]
    reader = ArrowReader(chosen)
    records = Records(name, keys, locators, reader, (folder,), positional=True, places=row_place)
    if (by_key := key_column(name, schema)) is None:
        return records
    found = [key for table in tables for key in table.texts(by_key)]
    given = [row if key is None else text_key(key) for row, key in zip(keys, found, strict=True)]
    unique, places = unique_records(zip(given, locators, strict=True))
    return replace(records, keys=unique, locators=places, positional=False)


def _opened(name: str, file: str) -> _Mapped:
    try:
        return _Mapped(file)
    except JepaJaxError:
        raise
    except Exception as error:  # what Arrow raises at damaged files is no closed set
        if of_the_machine(error):
            raise
        raise ArgumentError(f"input {text_key(name)}: {text_key(file)} cannot be read: {sentence(error)}.") from error


class _Mapped:
    """An Arrow file in memory's address space: its batches are known, none of their values is read yet."""

    def __init__(self, path: str):
        import pyarrow as pa

        self._path = path
        stream = pa.memory_map(path)
        size = stream.size()
        if size < len(END) or stream.read_at(len(END), size - len(END)) != END:
            raise ValueError("it does not end as such files do: it is cut, or another kind of Arrow file")
        messages = pa.ipc.MessageReader.open_stream(stream)
        self.schema = pa.ipc.read_schema(messages.read_next_message())
        self._batches = list(_batches(messages))
        if (end := stream.tell()) != size:
            raise ValueError(f"{size - end} bytes follow its end")
        self._ends: list[int] = []
        self._last: tuple[object, Any] = (None, None)
        for number in range(len(self._batches)):
            batch = self._batch(number)
            for column in batch.columns:
                column.validate()
            self._ends.append((self._ends[-1] if self._ends else 0) + batch.num_rows)
        if self.rows > size:
            raise ValueError(f"its {size} bytes claim {self.rows} rows")

    @property
    def rows(self) -> int:
        """How many there are."""
        return self._ends[-1] if self._ends else 0

    def cell(self, column: str, row: int) -> pa.Scalar:
        """One value.

        Raises:
            ImageError: there is no such row, or its batch is damaged.
        """
        number = bisect_right(self._ends, row)
        if number == len(self._ends):
            raise ImageError(f"{text_key(self._path)} holds {self.rows} rows, and none of number {row}")
        return self._column(column, number)[row - (self._ends[number - 1] if number else 0)]

    def texts(self, column: str) -> Iterator[str | None]:
        """A column's values as text."""
        import pyarrow as pa

        for number in range(len(self._batches)):
            yield from self._column(column, number).cast(pa.large_string()).to_pylist()

    def _column(self, column: str, number: int) -> pa.Array:
        import pyarrow as pa

        if self._last[0] != (column, number):
            values = self._batch(number).column(self.schema.names.index(column))
            try:
                values.validate(full=True)  # a damaged offset would be followed anywhere
            except pa.ArrowInvalid as error:
                raise ImageError(f"{text_key(self._path)} is damaged in batch {number}: {sentence(error)}") from error
            self._last = (column, number), values
        return self._last[1]

    def _batch(self, number: int) -> pa.RecordBatch:
        import pyarrow as pa

        return pa.ipc.read_record_batch(self._batches[number], self.schema)


def _batches(messages: Any) -> Iterator[Any]:
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            return
        if message.type != "record batch":
            raise ValueError(f"it holds a {message.type}, which is not read here; write the data set as Parquet")
        yield message


class _OpenFiles(threading.local):
    """The calling thread's open files."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, _Mapped] = OrderedDict()

    def get(self, path: str) -> _Mapped:
        if path not in self._files:
            self._files[path] = _Mapped(path)
            while len(self._files) > MOST_OPEN:
                self._files.popitem(last=False)
        self._files.move_to_end(path)
        return self._files[path]


_OPEN = _OpenFiles()


def _json(path: str) -> Mapping[str, Any]:
    with open(path, encoding="utf-8") as stream:
        found = json.load(stream)
    if not isinstance(found, dict):
        raise ValueError(f"{os.path.basename(path)} is no object")
    return found


def _is_a_name(name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name and name not in (".", "..")


def _is_saved_dataset(entries: Sequence[str]) -> bool:
    return SPLITS in entries or (DATASET in entries and DESCRIPTION in entries)


SAVED_DATASET = SourceKind(
    wording="a folder of datasets' save_to_disk",
    read=open_saved_dataset,
    is_folder=_is_saved_dataset,
    noun="a saved data set",
    read_part=open_saved_dataset,
)
