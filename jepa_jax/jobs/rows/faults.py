"""What is wrong with the machine and not with an image: such a record stops the job, and is recorded nowhere.

Of an error as such, decoding knows (`jepa_jax.images.decoding`). That a file is not there is an image's own fault,
unless the place that should hold it is away with everything in it: a disk that is not mounted leaves an empty folder,
or none.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import PurePath

from jepa_jax.errors import JobError
from jepa_jax.images.decoding import Decoded
from jepa_jax.images.sources import Records

MANY = 8
"""Records of a place that is away, from which on it is no slip of the list that names them; half of all also are."""


class Faults:
    """The machine's faults that reading a source shows.

    Args:
        source: the records.
        again: what happens once the fault is mended, as the end of a sentence.
    """

    def __init__(self, source: Records, again: str = "the same command resumes the job"):
        self._source, self._again = source, again
        self._counted: dict[bool, Counter[str]] = {}

    def require_none(self, record: Decoded) -> Decoded:
        """The record itself, if what is wrong with it, if anything, is its own fault.

        Raises:
            JobError: the machine's, or that of the input as a whole.
        """
        if record.no_fault_of_its_own:
            raise JobError(
                f"{self._source.keys[record.index]!r}: {record.reason}. No image is to blame for that: once this "
                f"machine can read it, {self._again}."
            )
        if record.unreadable:
            self._source.require_present()
            self._require_place(record.index)
        return record

    def _require_place(self, index: int) -> None:
        path = self._source.path(index)
        if path is None or "://" in path or os.path.exists(path):
            return
        through_links = os.path.islink(path)
        place = _away(os.path.dirname(os.path.realpath(path) if through_links else path))
        if place is None:
            return
        inside, total = self._records_below(through_links)[place], len(self._source.keys)
        if inside >= MANY or (inside > 1 and 2 * inside >= total):
            state = "is empty" if os.path.isdir(place) else "is not there"
            raise JobError(
                f"{place} {state}, and {inside} of the {total} records of {self._source.name} lie in it: no image is "
                f"to blame for that. Bring it back, and {self._again}; if it is gone for good, "
                "take its records out of the input first."
            )

    def _records_below(self, through_links: bool) -> Counter[str]:
        """How many records every folder holds, itself and below; by their own names, or by where links lead."""
        if through_links in self._counted:
            return self._counted[through_links]
        paths = (self._source.path(i) for i in range(len(self._source.keys)))
        local = (path for path in paths if path is not None and "://" not in path)
        folders = Counter(os.path.dirname(os.path.realpath(path) if through_links else path) for path in local)
        below = self._counted[through_links] = Counter()
        for folder, count in folders.items():
            for place in (folder, *map(os.fspath, PurePath(folder).parents)):
                below[place] += count
        return below


def _away(folder: str) -> str | None:
    """What is away of a folder's path: an empty folder, or the highest that is not there; None if nothing is."""
    gone = None
    while not os.path.isdir(folder):
        gone, folder = folder, os.path.dirname(folder)
    try:
        with os.scandir(folder) as entries:
            return gone if next(entries, None) is not None else folder
    except OSError:
        return gone
