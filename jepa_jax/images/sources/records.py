"""What every kind of input is turned into: records in a fixed order, each with a unique key."""

from __future__ import annotations

import hashlib
import numbers
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jepa_jax.errors import ArgumentError, ImageError, JobError
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.images.sources.names import text_key as text_key
from jepa_jax.images.sources.places import file_place
from jepa_jax.images.sources.remote import MAX_BYTES, read_range, read_remote, scheme_of, size_of, sizes_below
from jepa_jax.images.videos import VideoFile
from jepa_jax.paths import AnyPath, is_remote, to_path

Reader = Callable[[Any], bytes | np.ndarray | VideoFile]
"""From a record's locator to its encoded image, uint8 array or video. Picklable: it runs in worker processes too."""


@dataclass(frozen=True)
class Unusable:
    """In the place of a locator: why this record is known to have no image before it is read."""

    reason: str


VANISHED = Unusable("it was in the input when the job began, and has vanished since")
"""What a job that is resumed no longer finds."""


@dataclass(frozen=True)
class Records:
    """An ordered collection of pictures.

    A record is read in two steps, so that a worker process needs the reader and one small locator rather
    than the whole collection.

    Attributes:
        name: what the user called it.
        keys: one stable, unique key per record; its position is the record's index.
        locators: where each record lies, for the reader, or `Unusable`.
        reader: from a locator to the record's content.
        files: what must be there for any record to be readable.
        left_out: how many files were taken for no picture by their name.
        positional: whether the keys are mere positions, so that only the name tells one input from another.
        selected: whether these are some records of an input, chosen by their keys.
        absent: keys that were chosen and are not there.
        places: from a locator to where its picture is, as one text; None where every record is a file of its own.
        file_of: from a locator to the file that holds this record and nothing else; None where the reader says it.
        videos: whether these are videos, and no pictures.
    """

    name: str
    keys: Sequence[str]
    locators: Sequence[Any]
    reader: Reader
    files: tuple[str, ...] = ()
    left_out: int = 0
    positional: bool = False
    selected: bool = False
    absent: tuple[str, ...] = ()
    places: Callable[[Any], str | None] | None = None
    file_of: Callable[[Any], str | None] | None = None
    videos: bool = False

    @property
    def nouns(self) -> str:
        """What these are, in one word."""
        return "videos" if self.videos else "images"

    def read(self, index: int) -> bytes | np.ndarray | VideoFile:
        """The content of one record.

        Raises:
            ImageError: it is known to have none.
            OSError: it cannot be read.
        """
        locator = self.locators[index]
        if isinstance(locator, Unusable):
            raise ImageError(locator.reason)
        return self.reader(locator)

    def path(self, index: int) -> str | None:
        """The file that holds this record and nothing else; None where there is none, or its name is no UTF-8."""
        locator = self.locators[index]
        return None if isinstance(locator, Unusable) else file_of(self, locator)

    def place(self, index: int) -> str | None:
        """Where a record's picture is: a text that leads back to it, or None where there is no picture or no text.

        ``/full/path.jpg`` or a URL; ``ARCHIVE.tar::MEMBER``; ``FILE::ROW`` with a row's number in its file from 0
        (Parquet, Arrow, ``.npy``, ArrayRecord); ``FILE.npz::ARRAY::ROW``; ``tfds:NAME/SPLIT::NUMBER``, the record's
        number in the whole split. Files are named in full, and what stands behind the last ``::`` is within them.
        """
        locator = self.locators[index]
        if isinstance(locator, Unusable):
            return None
        return self.path(index) if self.places is None else self.places(locator)

    def sizes(self) -> list[int | None]:
        """Bytes of every record's encoded picture, as far as they are known without reading it."""
        reader = self.reader
        if self.videos:  # whose reader only opens them; they are as large as other files, or parts of archives
            reader = read_file if self.file_of is file_place else read_slice
        return sizes_of(reader, self.locators, self.files)

    def only(self, keys: Sequence[str]) -> Records:
        """Some of the records, in the order of the keys.

        Keys that are not there are kept, as `VANISHED`: a job that had them is resumed, a new one is refused.

        Raises:
            ArgumentError: there is no key, or one is given twice.
        """
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice or not keys:
            given = f"keys has {twice[0]!r} twice" if twice else "keys has no key"
            raise ArgumentError(f"{given}; give keys of a table of the input {self.name}, each once.")
        absent = tuple(sorted(set(keys).difference(self.keys)))
        return replace(self.arranged(keys), selected=True, absent=absent)

    def some(self, limit: int | None, shuffle_seed: int | None) -> Records:
        """The first so many records, or so many drawn at random.

        Args:
            limit: how many, at most; None for all.
            shuffle_seed: of a random order, in which a record's place hangs on its key and the seed alone: the same on
                every machine, and what is added to an input only comes in between. None keeps the input's order.

        Raises:
            ArgumentError: ``limit`` is no count.
        """
        if limit is not None and (not isinstance(limit, numbers.Integral) or limit < 1):
            raise ArgumentError(f"limit={limit!r} must be a whole number, at least 1; leave it out for all records.")
        if limit is None and shuffle_seed is None:
            return self
        keys = self.keys
        if shuffle_seed is not None:
            keys = sorted(keys, key=lambda key: hashlib.sha256(f"{shuffle_seed} {key}".encode()).digest())
        return replace(self.arranged(keys[:limit]), selected=True)

    def arranged(self, keys: Sequence[str]) -> Records:
        """The records of these keys in their order; `VANISHED` where there is none."""
        positions = {key: position for position, key in enumerate(self.keys)}
        return replace(self, keys=list(keys), locators=_Arranged(self.locators, [positions.get(key) for key in keys]))

    def require_fit(self, preprocess: PreprocessSpec, encoder: str) -> None:
        """Raise ArgumentError where these are videos and an encoder takes pictures, or the other way round."""
        if self.videos and preprocess.frames is None:
            raise ArgumentError(
                f"input {text_key(self.name)} holds videos, and {encoder} takes images; give an encoder of clips such "
                "as vjepa2-large, or a folder of images."
            )
        if not self.videos and preprocess.frames is not None:
            raise ArgumentError(
                f"input {text_key(self.name)} holds images, and {encoder} takes clips of {preprocess.frames} frames; "
                "give an encoder of images such as dinov2-small, or a folder of videos."
            )

    def require_selected(self) -> None:
        """Raise ArgumentError where keys were chosen that are not there."""
        if self.absent:
            some = ", ".join(map(repr, self.absent[:3]))
            raise ArgumentError(
                f"{len(self.absent)} of {len(self.keys)} keys are not in the input {self.name}, such as {some}. Give "
                "keys of a table of the same input."
            )

    def require_present(self) -> None:
        """Raise JobError where the input as a whole has vanished: no image is to blame then."""
        for file in map(to_path, self.files):
            # Of a volume that is no longer mounted, the empty folder that it was mounted on is left.
            if not file.exists() or (file.is_dir() and _is_empty(file)):
                raise JobError(f"input {file} has vanished. Bring it back; the same command then resumes the job.")


def _is_empty(folder: AnyPath) -> bool:
    if is_remote(folder):
        return next(folder.iterdir(), None) is None
    with os.scandir(folder) as entries:  # one of them, where pathlib would list a million first
        return next(entries, None) is None


@dataclass(frozen=True)
class _Arranged(Sequence):
    """Locators in another order, each made when it is asked for."""

    locators: Sequence[Any]
    positions: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Any) -> Any:
        position = self.positions[index]
        return VANISHED if position is None else self.locators[position]


def unique_records(entries: Iterable[tuple[str, Any]]) -> tuple[list[str], list[Any]]:
    """Keys and locators, each key once.

    A key that another usable record has before is kept as a record of its own, ``KEY#2``, ``KEY#3`` and so on, which
    is unusable: only the first of them is scored, and the table of failures names the others.
    """
    entries = list(entries)
    taken = {key for key, _ in entries}
    if len(taken) < len(entries):
        entries = list(_told_apart(entries, taken))
    return [key for key, _ in entries], [locator for _, locator in entries]


def _told_apart(entries: list[tuple[str, Any]], taken: set[str]) -> Iterator[tuple[str, Any]]:
    usable = {key for key, locator in entries if not isinstance(locator, Unusable)}
    count: dict[str, int] = {}
    for given, locator in entries:
        has_image = not isinstance(locator, Unusable)
        if given not in count and (has_image or given not in usable):
            count[given] = 1
            yield given, locator
            continue
        number = count.get(given, 1) + 1
        while (key := f"{given}#{number}") in taken:
            number += 1
        taken.add(key)
        if given in count:
            count[given] = number
        yield key, Unusable(f"duplicate key: {given!r} is in the input before") if has_image else locator


def file_of(records: Records, locator: Any) -> str | None:
    """The file of a locator, where it is one of its own."""
    if records.file_of is not None:
        return records.file_of(locator)
    return file_place(locator) if records.reader is read_file else None


def full_path(path: str) -> str:
    """A path wherever the command is given: a local one in full."""
    return path if "://" in path else text_key(os.path.abspath(path))


def read_file(path: str) -> bytes:
    """A whole file, local or behind a scheme.

    Raises:
        ImageError: it is no regular file, or too large.
        OSError: it cannot be read.
    """
    if scheme_of(path):
        return read_remote(path)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
        raise ImageError("it is no regular file")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"the file has {status.st_size} bytes, over the limit of {MAX_BYTES}")
    with open(path, "rb") as stream:
        return stream.read()


def read_slice(locator: tuple[str, int, int, str]) -> bytes:
    """Bytes of a file from an offset on: (path, offset, size, what they are called there)."""
    path, offset, size, _ = locator
    if size > MAX_BYTES:
        raise ImageError(f"the file has {size} bytes, over the limit of {MAX_BYTES}")
    if scheme_of(path):
        data = read_range(path, offset, size)
    else:
        with open(path, "rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
    if len(data) < size:
        raise ImageError(f"{text_key(path)} ends within this record: {len(data)} of its {size} bytes are there")
    return data


def identity(locator: np.ndarray) -> np.ndarray:
    """The reader of records that are their own locators."""
    return locator


def sizes_of(reader: Reader, locators: Sequence[Any], files: Sequence[str]) -> list[int | None]:
    """See `Records.sizes`."""
    if reader is read_slice:
        return [None if isinstance(locator, Unusable) else locator[2] for locator in locators]
    if reader is not read_file:
        return [None] * len(locators)
    listed = sizes_below(files[0]) if len(files) == 1 and scheme_of(files[0]) else {}
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda locator: _size(locator, listed), locators))


def _size(locator: str | Unusable, listed: Mapping[str, int]) -> int | None:
    if isinstance(locator, Unusable):
        return None
    if locator in listed:
        return listed[locator]
    try:
        return size_of(locator) if scheme_of(locator) else os.stat(locator).st_size
    except OSError:
        return None
