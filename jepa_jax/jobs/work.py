"""What one process does of a job: part after part is decoded, scored and written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from jepa_jax.errors import JobError
from jepa_jax.images.pipeline import decode_ahead
from jepa_jax.jobs.open_shard import OpenShard
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.output.ownership import Ownership
from jepa_jax.jobs.plan import Plan
from jepa_jax.jobs.processes.team import Deal, Team
from jepa_jax.jobs.progress.protocol import Progress, ShardReport
from jepa_jax.jobs.rows.faults import Faults
from jepa_jax.jobs.rows.step import Step
from jepa_jax.jobs.rows.stream import DeviceClock, score_stream
from jepa_jax.jobs.stopping import StopSignals, pause

LOOK_EVERY = 5.0
"""Seconds between two looks at what other processes have finished."""


class Work:
    """What one process does of a job, part after part."""

    def __init__(
        self,
        plan: Plan,
        step: Step,
        options: JobOptions,
        progress: Progress,
        team: Team,
        claim: Ownership,
        deal: Deal,
        signals: StopSignals,
    ):
        self.plan, self.step, self.options, self.progress = plan, step, options, progress
        self.team, self.claim, self.deal, self.signals = team, claim, deal, signals
        self._looked, self._waiting = time.monotonic(), False
        self.clock, self.faults = DeviceClock(), Faults(plan.source)
        signals.waiting_for = self.clock.under_way
        self.tried = self.failed = 0

    def wait(self) -> None:
        """Give the others a moment, and say so the first time."""
        if not self._waiting:
            self.progress.note("What is left is in other processes' hands; waiting for them.")
        self._waiting = True
        pause(self.signals)

    def look_at_others(self) -> None:
        """Tell what the other processes have done, every few seconds."""
        if self.team.count > 1 and time.monotonic() - self._looked > LOOK_EVERY:
            self._looked = time.monotonic()
            done = sum(len(self.plan.shards[part]) for part in self.deal.of_others())
            if done:
                self.progress.elsewhere(done)

    def compute(self, parts: Iterator[int]) -> None:
        """Score the records of some parts and write each part as soon as it is whole."""
        opened: dict[int, OpenShard] = {}
        shard_of: dict[int, int] = {}

        def indices() -> Iterator[int]:
            for part in self._claimed(parts):
                opened[part] = OpenShard(self.plan.shards[part])
                shard_of.update(dict.fromkeys(self.plan.shards[part], part))
                if opened[part].whole:  # all of it was superseded
                    self._write(part, opened.pop(part))
                yield from self.plan.shards[part]

        decoding = decode_ahead(
            self.plan.source, indices(), self.step.recipe, workers=self.options.workers, ahead=2 * self.step.records
        )
        columns, limit = tuple(sorted(self.options.columns)), self.options.failure_limit
        with (
            contextlib.closing(decoding) as decoded,
            contextlib.closing(
                score_stream(
                    decoded, self.step, columns, self.clock, stopped=lambda: self.signals.received is not None
                )
            ) as outcomes,
        ):
            for outcome in outcomes:
                self.faults.require_none(outcome.record)
                bad = int(outcome.row is None)
                self.tried, self.failed = self.tried + 1, self.failed + bad
                self.progress.advance(1 - bad, bad, self.clock.share)
                part = shard_of.pop(outcome.record.index)
                opened[part].add(outcome)
                if opened[part].whole:
                    self._write(part, opened.pop(part))
                self.claim.watch()
                self.look_at_others()
                limit.check(self.tried, self.failed, outcome.reason)
        self.signals.raise_if_received()

    def _claimed(self, parts: Iterator[int]) -> Iterator[int]:
        try:
            yield from parts
        except JobError:
            self.claim.require()  # where the whole directory is gone, that is what is said
            raise

    def _write(self, part: int, shard: OpenShard) -> None:
        self.claim.require()
        source, writer = self.plan.source, self.plan.writer
        writer.write(part, shard.columns(source, writer.schema.names), shard.failed(source))
        counts = (len(shard.rows), len(shard.failures), self.team.index, self.tried, self.failed)
        self.progress.shard_written(
            ShardReport(writer.name(part), part, *counts, self.clock.seconds, self.clock.share)
        )
