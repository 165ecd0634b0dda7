"""A scoring job: from a source of images to a complete table, resumable at any shard.

The unit of work is a shard, a fixed run of record indices. A shard is done when its part exists; a
resumed job computes the parts that are missing and nothing else, with however many processes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.images.pipeline import decode_ahead
from jepa_jax.images.sources import Records
from jepa_jax.jobs.claim import Claim, begin, output_place
from jepa_jax.jobs.devices import Step, default_batch_size
from jepa_jax.jobs.extension import GONE, described, extended, gone_table, what_is_new
from jepa_jax.jobs.faults import Faults
from jepa_jax.jobs.manifest import build_manifest, read_manifest, require_same, write_manifest
from jepa_jax.jobs.measured_noise import measure_noise, require_measurable
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.pinned import Pinned, pin_records, write_records
from jepa_jax.jobs.progress import Progress, ShardReport, Summary
from jepa_jax.jobs.schema import score_schema
from jepa_jax.jobs.shards import OpenShard, default_shard_size
from jepa_jax.jobs.stopping import StopSignals
from jepa_jax.jobs.stream import DeviceClock, compile_step, score_stream
from jepa_jax.jobs.team import POLL, Deal, Team
from jepa_jax.jobs.upgrade import require_same_scores, upgrades
from jepa_jax.jobs.writer import OLD_LAYOUT, PartWriter
from jepa_jax.parquet import parquet_bytes
from jepa_jax.paths import AnyPath, PathLike, write_whole

LOOK_EVERY = 5.0
"""Seconds between two looks at what other processes have finished."""

FINISHING = 5.0
"""Seconds that a process gives each of those before it to close a job whose parts are all there."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        pinned: the records, as they were when the job began or was extended.
        shards: the record indices of every shard.
        missing: the shards that have no part.
        writer: of the parts.
        manifest: of the job.
        notes: worth saying, in words.
    """

    pinned: Pinned
    shards: list[list[int] | range]
    missing: list[int]
    writer: PartWriter
    manifest: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> Records:
        """The records."""
        return self.pinned.source

    @property
    def records(self) -> int:
        """How many the tables have in the end."""
        return sum(map(len, self.shards))

    @property
    def records_missing(self) -> int:
        """Records of the missing shards."""
        return sum(len(self.shards[shard]) for shard in self.missing)


def run_job(
    encoder: Encoder,
    source: Records,
    output: PathLike,
    progress: Progress,
    options: JobOptions | None = None,
    team: Team | None = None,
) -> Summary:
    """Score every record of a source, or what earlier runs left of it.

    Several processes do a job in common where each gives the same arguments, sees the same input and the same output
    directory, and says which one it is.

    Args:
        encoder: scores the images, by its own recipe.
        source: the records.
        output: directory of the table; a job that was begun there is resumed.
        progress: is told what happens in this process.
        options: how it is done.
        team: this process among the others; by default it is alone.

    Returns:
        The summary of the whole job, in every process.

    Raises:
        JobInterrupted: a signal stopped it.
        JobError: the directory belongs to another job, or the job cannot go on. What is whole is kept.
    """
    directory, team = output_place(output), team or Team()
    options = (options or JobOptions()).resolved
    with StopSignals(progress.note) as signals:
        plan = make_plan(encoder, source, directory, options, write=True, team=team)
        for note in plan.notes:
            progress.note(note)
        with Deal(directory, plan.missing, team, plan.writer.written) as deal:
            _score_missing(encoder, plan, options, progress, team, deal, signals)
            if deal.alone:
                progress.note(
                    f"This process did all parts, and none of the {team.count - 1} others was seen: do all see "
                    f"one and the same directory {directory}?"
                )
            return _finish(plan, directory, options, team, deal, signals)


def make_plan(
    encoder: Encoder, source: Records, directory: AnyPath, options: JobOptions, write: bool, team: Team | None = None
) -> Plan:
    """What a job would do; with ``write``, the directory is made the job's.

    Raises:
        JobError: it belongs to another job.
    """
    team = team or Team()
    require_measurable(encoder, options)
    if options.retry_failed and team.count > 1 and team.run is None:
        raise ArgumentError(
            "retry_failed: processes that were started one by one would take each other's new parts for old ones. "
            "Start them with --processes or under srun, or give --retry-failed to one process alone."
        )
    old = read_manifest(directory)
    if old is None:
        source.require_selected()
        size = options.shard_size or default_shard_size(len(source.keys))
        noise = measure_noise(encoder, source, options) if write and options.calibrate else None
        manifest = build_manifest(encoder, source, options, size, noise)
        pinned = Pinned(source, (len(source.keys),))
        if write:
            old = begin(directory, manifest)  # another job's, if it was faster
    notes: list[str] = []
    changed: dict[str, list[str]] = {}
    if old is not None:
        pinned = pin_records(directory, source, old, write, options.extend)
        size = options.shard_size or old["pinned"].get("shard_size") or default_shard_size(len(source.keys))
        first = replace(pinned.source, keys=pinned.source.keys[: pinned.generations[0]])
        manifest = build_manifest(
            encoder, first, options, size, old.get("noise"), old.get("format_version", OLD_LAYOUT)
        )
        manifest["job"] = old.get("job")
        manifest |= {name: old[name] for name in ("extensions", "upgrades") if name in old}
        changed = upgrades(old, manifest)
        require_same(
            directory, old, manifest | {"pinned": manifest["pinned"] | {n: v for n, (v, _) in changed.items()}}
        )
    version = manifest["format_version"]
    schema = _schema(encoder, options, version)

    def writer_of(pinned: Pinned) -> PartWriter:
        return PartWriter(directory, len(pinned.shards(size)), schema, manifest["job"], version, team.run)

    if old is not None and changed:
        record = require_same_scores(encoder, pinned.source, writer_of(pinned), options, old.get("noise"), changed)
        notes.append(
            f"Libraries have changed since the job began ({changed}); {record['rows_compared']} finished rows differ "
            f"by {record['largest_difference_nats']:.2g} nats at most."
        )
        manifest["upgrades"] = [*old.get("upgrades", []), record]
        if write:
            write_manifest(directory, manifest)
    if options.extend and old is not None:
        if version == OLD_LAYOUT:
            raise JobError(
                f"output {directory} was begun by an earlier version, whose parts say how many there are: it cannot "
                "be extended. Score the new records in a new output directory."
            )
        grown = extended(pinned, source, writer_of(pinned))
        notes.append(what_is_new(pinned, grown))
        pinned, later = grown, described(grown)
        manifest["extensions"] = later
        if write and later != old.get("extensions", []):
            write_records(directory, grown, only=len(grown.generations) - 1)
            write_manifest(directory, manifest)
        if write:
            write_whole(directory / GONE, parquet_bytes(gone_table(grown)))
    writer, shards = writer_of(pinned), pinned.shards(size)
    again = writer.with_failures() if options.retry_failed else []
    missing = writer.missing()
    if write and old is not None and old.get("complete") and (again or missing):
        write_manifest(directory, manifest)  # before anything is taken away: readers must not take it for complete
    if write:
        writer.discard([*again, *writer.foreign])
        _drop_superseded(pinned, size, writer)
    return Plan(pinned, shards, sorted({*missing, *again}), writer, manifest, tuple(notes))


def _schema(encoder: Encoder, options: JobOptions, format_version: int) -> Any:
    spec = encoder.spec
    return score_schema(
        spec.embedding_size,
        spec.gaussian_embedding,
        sorted(options.columns),
        options.save_dtype,
        not options.score.spectrum,
        options.views,
        placed=format_version != OLD_LAYOUT,
    )


def _drop_superseded(pinned: Pinned, size: int, writer: PartWriter) -> None:
    """Take out of finished parts the rows of pictures that have changed since."""
    by_shard: dict[int, list[str]] = {}
    for index in pinned.superseded():
        by_shard.setdefault(pinned.shard_of(index, size), []).append(pinned.source.keys[index])
    for shard, keys in by_shard.items():
        writer.drop(shard, keys)


def _score_missing(
    encoder: Encoder,
    plan: Plan,
    options: JobOptions,
    progress: Progress,
    team: Team,
    deal: Deal,
    signals: StopSignals,
) -> None:
    """Compute and write missing parts until none is left, whoever wrote it.

    Batches run across shards, so that only the last one of a process is ever filled up.
    """
    records, todo = plan.records, plan.records_missing
    progress.start(records, records - todo)
    if not plan.missing:
        return
    noise = plan.manifest["noise"]
    step = Step(encoder, options, options.batch_size or default_batch_size(encoder.spec), progress.note, noise)
    progress.doing(f"compiling for batches of {step.batch_size}")
    signals.waiting_for = lambda: "the compiler, which cannot be interrupted"
    program = compile_step(step)
    progress.note(
        f"Compiled in {program.compile_seconds:.1f} s: batches of {step.batch_size}, "
        f"{program.plan.block_size or 'all'} rows of the Jacobian at a time, {program.peak_bytes / 2**20:,.0f} MiB."
    )
    if noise:
        levels = ", ".join(f"{value:.2g} in {level}" for level, value in noise.items())
        progress.note(f"Rounding noise of the Jacobian, measured on {options.calibrate} images: {levels}.")
    progress.doing("decoding and computing the first batch")
    work = _Work(plan, step, options, progress, team, Claim(plan.writer.directory, plan.manifest), deal, signals)
    while True:
        work.compute(deal.now())
        if not deal.anything_left():
            break
        work.claim.watch()
        work.look_at_others()
        work.wait()
    if said := work.clock.verdict(options.workers):
        progress.note(said)


class _Work:
    """What one process does of a job, part after part."""

    def __init__(
        self,
        plan: Plan,
        step: Step,
        options: JobOptions,
        progress: Progress,
        team: Team,
        claim: Claim,
        deal: Deal,
        signals: StopSignals,
    ):
        self.plan, self.step, self.options, self.progress = plan, step, options, progress
        self.team, self.claim, self.deal, self.signals = team, claim, deal, signals
        self._looked = time.monotonic()
        self.clock, self.faults = DeviceClock(), Faults(plan.source)
        signals.waiting_for = self.clock.under_way
        self.tried = self.failed = 0

    def wait(self) -> None:
        """Give the others a moment."""
        deadline = time.monotonic() + POLL
        while time.monotonic() < deadline:
            self.signals.raise_if_received()
            time.sleep(0.05)

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


def _finish(
    plan: Plan, directory: AnyPath, options: JobOptions, team: Team, deal: Deal, signals: StopSignals
) -> Summary:
    """Check the tables and close the job; the processes after the first give those before them time to do it."""
    deadline = time.monotonic() + FINISHING * team.index
    resumed = plan.records - plan.records_missing
    while time.monotonic() < deadline:
        found = read_manifest(directory)
        if found is not None and found.get("complete") and found.get("extensions") == plan.manifest.get("extensions"):
            return Summary(plan.records, found["scored"], found["failed"], resumed)
        signals.raise_if_received()
        time.sleep(0.2)
    claim = Claim(directory, plan.manifest)
    claim.require()
    failed = plan.writer.finish([len(indices) for indices in plan.shards])
    claim.require()
    options.failure_limit.check_all(plan.records, failed)
    scored = plan.records - failed
    write_manifest(directory, plan.manifest | {"complete": True, "scored": scored, "failed": failed})
    deal.clear()
    return Summary(plan.records, scored, failed, resumed)
