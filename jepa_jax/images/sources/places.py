"""Where a picture is, as one text; and rows over several files."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jepa_jax.images.sources.names import is_text

WITHIN = "::"
"""Stands between a file and what of it is meant."""


def file_place(path: str) -> str | None:
    """A file's full path or URL; None where its name is no UTF-8."""
    if not is_text(path):
        return None
    return path if "://" in path else os.path.abspath(path)


def part_place(path: str, part: str) -> str | None:
    """A part of a file: ``/full/path.tar::MEMBER``."""
    place = file_place(path)
    return None if place is None or not is_text(part) else f"{place}{WITHIN}{part}"


def row_place(locator: tuple[str, int]) -> str | None:
    """A row of a table: ``/full/path.parquet::ROW``, numbered from 0 in its file."""
    path, row = locator
    return part_place(path, str(row))


@dataclass(frozen=True)
class Rows(Sequence):
    """Locators (file, number of the row in it), each made when it is asked for.

    Attributes:
        files: in their order.
        ends: number of the first row behind each file, over all.
    """

    files: Sequence[str]
    ends: Sequence[int]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        file = bisect_right(self.ends, index)
        return self.files[file], index - (self.ends[file - 1] if file else 0)
