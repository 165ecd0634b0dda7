"""What a job tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ShardReport:
    """A part that has just been written.

    Attributes:
        part: its file name.
        shard: its number.
        scored: its records with scores.
        failed: its records without.
        process: which process wrote it.
        records_done: records that this process has finished in this run.
        records_failed: those of them that failed.
        seconds: since the first batch.
        device_busy: share of that time in which the device was at work.
    """

    part: str
    shard: int
    scored: int
    failed: int
    process: int
    records_done: int
    records_failed: int
    seconds: float
    device_busy: float


class Progress(Protocol):
    """Whoever watches a job."""

    def start(self, total: int, done: int) -> None:
        """The process has ``total`` records to see to, ``done`` of which an earlier run finished."""
        ...

    def doing(self, what: str) -> None:
        """What goes on until something else is said or the first record is done, such as ``compiling``."""
        ...

    def advance(self, scored: int, failed: int, device_busy: float) -> None:
        """So many more records are scored or failed; the device was busy for that share of the time so far."""
        ...

    def elsewhere(self, records: int) -> None:
        """Other processes have finished so many more."""
        ...

    def shard_written(self, report: ShardReport) -> None:
        """A part is on disk."""
        ...

    def note(self, message: str) -> None:
        """Something worth saying, such as what was compiled or that memory ran out."""
        ...


@dataclass(frozen=True)
class Summary:
    """What a finished job leaves behind.

    Attributes:
        records: records in the source.
        scored: rows in the table.
        failed: rows in failures.parquet.
        resumed: records that earlier runs had finished.
    """

    records: int
    scored: int
    failed: int
    resumed: int
