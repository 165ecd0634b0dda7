"""Where a picture is, as one text; and rows over several files."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jepa_jax.images.sources.names import PART, is_text


def file_place(path: str) -> str | None:
    """A file's full path or URL; None where its name is no UTF-8."""
    if not is_text(path):
        return None
    return path if "://" in path else os.path.abspath(path)


def part_place(path: str, part: str) -> str | None:
    """A part of a file: ``/full/path.tar::MEMBER``."""
    place = file_place(path)
    return None if place is None or not is_text(part) else f"{place}{PART}{part}"


def row_place(locator: tuple[str, int]) -> str | None:
    """A row of a table: ``/full/path.parquet::ROW``, numbered from 0 in its file."""
    path, row = locator
    return part_place(path, str(row))


@dataclass(frozen=True)
class Chained(Sequence):
    """Several sequences as one, whose items are made when they are asked for.

    Attributes:
        parts: the sequences, or what stands for each.
        ends: number of the first item behind each, over all.
    """

    parts: Sequence[Any]
    ends: Sequence[int]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        which = bisect_right(self.ends, index)
        return self.item(which, index - (self.ends[which - 1] if which else 0))

    def item(self, which: int, within: int) -> Any:
        """An item of one of the sequences."""
        raise NotImplementedError


class Rows(Chained):
    """Locators (file, number of the row in it) of several files."""

    def item(self, which: int, within: int) -> tuple[str, int]:
        """A row of a file."""
        return self.parts[which], within
