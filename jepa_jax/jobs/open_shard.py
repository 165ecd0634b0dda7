"""The unit of work: a fixed run of record indices, whatever number of processes computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_jax.images.sources import Records
from jepa_jax.jobs.rows.stream import Outcome, RecordScores


@dataclass
class OpenShard:
    """A shard whose records are partly known.

    Attributes:
        indices: of its records.
        rows: the scored ones, by index.
        failures: the reasons of the others, by index.
        bytes: of the encoded pictures, by index, where they are known.
    """

    indices: Sequence[int]
    rows: dict[int, RecordScores] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    bytes: dict[int, int] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """One more record is known."""
        if outcome.record.bytes is not None:
            self.bytes[outcome.record.index] = outcome.record.bytes
        if outcome.row is None:
            self.failures[outcome.record.index] = outcome.reason
        else:
            self.rows[outcome.record.index] = outcome.row

    @property
    def whole(self) -> bool:
        """Whether every record is known."""
        return len(self.rows) + len(self.failures) == len(self.indices)

    def columns(self, source: Records, names: Sequence[str]) -> dict[str, Any]:
        """The scored records, in order, by column: lists, and arrays [n] or [n, K], under these names."""
        scored = sorted(self.rows)
        told = {
            "key": [source.keys[i] for i in scored],
            "place": [source.place(i) for i in scored],
            "bytes": [self.bytes.get(i) for i in scored],
        }
        # Without any row NumPy could not know the dtype of a column, and a list has none.
        others = [name for name in names if name not in told]
        return told | {name: np.array([self.rows[i][name] for i in scored]) if scored else [] for name in others}

    def failed(self, source: Records) -> list[dict[str, Any]]:
        """The others, in order."""
        return [
            {"key": source.keys[i], "reason": reason, "bytes": self.bytes.get(i)}
            for i, reason in sorted(self.failures.items())
        ]
