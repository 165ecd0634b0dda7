"""Rows of a table that are read forwards, a few at a time, of which the last ones are kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jepa_jax.errors import ImageError
from jepa_jax.images.reasons import of_the_machine, sentence

if TYPE_CHECKING:
    import pyarrow as pa

KEPT = 2**26
"""Bytes of rows that are kept behind the one that is read, in each process (64 MiB)."""


class RowsReadAhead:
    """A column of a row group, of any size, in bounded memory.

    Rows that are asked for in order are read once. One that lies further back than what is kept starts the group
    anew, so that of groups beyond `KEPT` a random order is slow.

    Args:
        name: of the file, in messages.
        first: number of the group's first row in its file, in messages.
        batches: begins to read the column anew.
    """

    def __init__(self, name: str, first: int, batches: Callable[[], Iterator[pa.Array]]):
        self._name, self._first, self._begin = name, first, batches
        self._damage: tuple[int, str] | None = None
        self._restart()

    def _restart(self) -> None:
        self._batches = self._begin()
        self._kept: deque[tuple[int, pa.Array]] = deque()
        self._bytes, self._end = 0, 0

    def __getitem__(self, row: int) -> pa.Scalar:
        """A row of the group.

        Raises:
            ImageError: the file is damaged there or before, or has no such row.
        """
        if self._damage and row >= self._damage[0]:
            raise ImageError(self._damage[1])
        if row < (self._kept[0][0] if self._kept else self._end):
            self._restart()
        while row >= self._end:
            self._read_on()
        start, values = next((start, values) for start, values in reversed(self._kept) if start <= row)
        return values[row - start]

    def _read_on(self) -> None:
        end = self._end
        try:
            values = next(self._batches, None)
            if values is not None:
                values.validate(full=True)  # a damaged offset would be followed anywhere
        except Exception as error:  # what a damaged file raises is no closed set
            self._restart()
            if of_the_machine(error):
                raise
            raise self._damaged(end, sentence(error)) from error
        if values is None:
            self._restart()
            raise self._damaged(end, "it ends there")
        self._kept.append((end, values))
        self._bytes, self._end = self._bytes + values.nbytes, end + len(values)
        while self._bytes > KEPT and len(self._kept) > 1:
            self._bytes -= self._kept.popleft()[1].nbytes

    def _damaged(self, row: int, why: str) -> ImageError:
        reason = f"{self._name} is damaged in the rows from {self._first + row} on: {why}"
        self._damage = (row, reason)
        return ImageError(reason)
