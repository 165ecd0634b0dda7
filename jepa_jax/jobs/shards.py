"""The unit of work: a fixed run of record indices, whatever number of processes computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_jax.jobs.stream import Outcome, RecordScores


@dataclass
class OpenShard:
    """A shard whose records are partly known.

    Attributes:
        indices: of its records.
        rows: the scored ones, by index.
        failures: the reasons of the others, by index.
    """

    indices: range
    rows: dict[int, RecordScores] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """One more record is known."""
        if outcome.row is None:
            self.failures[outcome.record.index] = outcome.reason
        else:
            self.rows[outcome.record.index] = outcome.row

    @property
    def whole(self) -> bool:
        """Whether every record is known."""
        return len(self.rows) + len(self.failures) == len(self.indices)

    def columns(self, keys: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
        """The scored records, in order, by column: ``key``, and arrays [n] or [n, K] under these names."""
        scored = sorted(self.rows)
        # Without any row NumPy could not know the dtype of a column, and a list has none.
        arrays = {name: np.array([self.rows[i][name] for i in scored]) if scored else [] for name in names}
        return {"key": [keys[i] for i in scored]} | arrays

    def failed(self, keys: Sequence[str]) -> list[dict[str, str]]:
        """The others, in order."""
        return [{"key": keys[i], "reason": reason} for i, reason in sorted(self.failures.items())]


def shard_ranges(records: int, shard_size: int) -> list[range]:
    """The record indices of every shard."""
    return [range(start, min(start + shard_size, records)) for start in range(0, records, shard_size)]


def default_shard_size(records: int) -> int:
    """About 64 shards: a killed job loses little, a large one does not drown in files."""
    return min(1024, max(8, math.ceil(records / 64)))


def to_runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as runs (first, last), which is how a plan of many shards stays short."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def from_runs(runs: Sequence[Sequence[int]]) -> list[int]:
    """The numbers of runs (first, last)."""
    return [number for first, last in runs for number in range(first, last + 1)]
