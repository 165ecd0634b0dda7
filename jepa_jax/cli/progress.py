"""What the command line shows of a running job: what any console does (`jobs.progress.console`), and JSON lines."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TextIO

from jepa_jax.cli.streams import lose
from jepa_jax.jobs import Progress as JobProgress
from jepa_jax.jobs import ShardReport


class JsonProgress:
    """Adds JSON lines to what another progress shows, one per part and one per note, for whatever collects logs."""

    def __init__(self, shown: JobProgress, stream: TextIO):
        self._shown, self._stream = shown, stream

    def start(self, total: int, done: int) -> None:
        """See `jobs.Progress`."""
        self._shown.start(total, done)

    def doing(self, what: str) -> None:
        """See `jobs.Progress`."""
        self._shown.doing(what)

    def advance(self, scored: int, failed: int, device_busy: float) -> None:
        """See `jobs.Progress`."""
        self._shown.advance(scored, failed, device_busy)

    def elsewhere(self, records: int) -> None:
        """See `jobs.Progress`."""
        self._shown.elsewhere(records)

    def note(self, message: str) -> None:
        """See `jobs.Progress`."""
        self._shown.note(message)
        self._write({"note": message})

    def shard_written(self, report: ShardReport) -> None:
        """See `jobs.Progress`."""
        self._shown.shard_written(report)
        self._write(asdict(report))

    def _write(self, facts: dict[str, object]) -> None:
        try:
            print(json.dumps({"time": time.time(), **facts}), file=self._stream, flush=True)
        except BrokenPipeError:
            lose(self._stream)
