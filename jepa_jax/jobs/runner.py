"""A scoring job: from a source of images to a complete table, resumable at any shard.

The unit of work is a shard, a fixed run of record indices. A shard is done when its part exists; a
resumed job computes the parts that are missing and nothing else, with however many processes.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from typing import Any

from etils import epath

from jepa_jax.encoders import Encoder
from jepa_jax.errors import JepaJaxError, JobError
from jepa_jax.images.pipeline import decode_ahead
from jepa_jax.images.sources import Records
from jepa_jax.jobs.claim import Claim, begin, output_place
from jepa_jax.jobs.devices import Step, default_batch_size
from jepa_jax.jobs.faults import Faults
from jepa_jax.jobs.manifest import build_manifest, read_manifest, require_same, write_manifest
from jepa_jax.jobs.measured_noise import measure_noise, require_measurable
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.pinned import pin_records
from jepa_jax.jobs.progress import Progress, ShardReport, Summary
from jepa_jax.jobs.schema import score_schema
from jepa_jax.jobs.shards import OpenShard, default_shard_size, from_runs, shard_ranges, to_runs
from jepa_jax.jobs.stopping import StopSignals
from jepa_jax.jobs.stream import DeviceClock, compile_step, score_stream
from jepa_jax.jobs.team import Team
from jepa_jax.jobs.writer import PartWriter

SEEN_WITHIN = 90.0
"""Seconds in which every process must see what another one wrote; NFS may keep a directory's entries for 60."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        source: the records, as they were when the job began.
        ranges: the record indices of every shard.
        missing: the shards that have no part.
        writer: of the parts.
        manifest: of the job.
    """

    source: Records
    ranges: list[range]
    missing: list[int]
    writer: PartWriter
    manifest: dict[str, Any]

    @property
    def records_missing(self) -> int:
        """Records of the missing shards."""
        return sum(len(self.ranges[shard]) for shard in self.missing)


def run_job(
    encoder: Encoder,
    source: Records,
    output: epath.PathLike,
    progress: Progress,
    options: JobOptions | None = None,
) -> Summary:
    """Score every record of a source, or what earlier runs left of it.

    Processes that `jax.distributed.initialize` has brought together do the job in common: each gives the same
    arguments and sees the same input and the same output directory.

    Args:
        encoder: scores the images, by its own recipe.
        source: the records.
        output: directory of the table; a job that was begun there is resumed.
        progress: is told what happens in this process.
        options: how it is done.

    Returns:
        The summary of the whole job, in every process.

    Raises:
        JobInterrupted: a signal stopped it.
        JobError: the directory belongs to another job, or the job cannot go on. What is whole is kept.
    """
    directory = output_place(output)
    team = Team.current()
    options = (options or JobOptions()).resolved
    with StopSignals(progress.note) as signals:
        try:
            plan = _agree(encoder, source, directory, options, team, signals)
            _score_missing(encoder, plan, options, progress, team, signals)
            return _finish(plan, directory, options, team, signals)
        except BaseException as error:
            team.failed(str(error) if isinstance(error, JepaJaxError) else repr(error))
            raise
        finally:
            team.end()


def make_plan(encoder: Encoder, source: Records, directory: epath.Path, options: JobOptions, write: bool) -> Plan:
    """What a job would do; with ``write``, the directory is made the job's.

    Raises:
        JobError: it belongs to another job.
    """
    require_measurable(encoder, options)
    old = read_manifest(directory)
    if old is None:
        source.require_selected()
        size = options.shard_size or default_shard_size(len(source.keys))
        noise = measure_noise(encoder, source, options) if write and options.calibrate else None
        manifest = build_manifest(encoder, source, options, size, noise)
        if write:
            old = begin(directory, manifest)  # another job's, if it was faster
    if old is not None:
        pinned = old["pinned"]
        source = pin_records(directory, source, pinned.get("keys_sha256", ""), write)
        size = options.shard_size or pinned.get("shard_size") or default_shard_size(len(source.keys))
        manifest = build_manifest(encoder, source, options, size, old.get("noise"))
        manifest["job"] = old.get("job")
        require_same(directory, old, manifest)
    spec = encoder.spec
    columns = sorted(options.columns)
    schema = score_schema(
        spec.embedding_size,
        spec.gaussian_embedding,
        columns,
        options.save_dtype,
        not options.score.spectrum,
        options.views,
    )
    ranges = shard_ranges(len(source.keys), size)
    writer = PartWriter(directory, len(ranges), schema, manifest["job"])
    again = writer.with_failures() if options.retry_failed else []
    if write and old is not None and old.get("complete") and (again or writer.missing()):
        write_manifest(directory, manifest)  # before anything is taken away: readers must not take it for complete
    if write:
        writer.discard(again)
    return Plan(source, ranges, writer.missing(), writer, manifest)


def _agree(
    encoder: Encoder, source: Records, directory: epath.Path, options: JobOptions, team: Team, signals: StopSignals
) -> Plan:
    """The same plan in every process: the coordinator's."""
    if team.coordinates:
        plan = make_plan(encoder, source, directory, options, write=True)
        team.publish("plan", {"missing": to_runs(plan.missing), "pinned": plan.manifest["pinned"]})
        return plan
    agreed = team.wait_for("plan", signals.raise_if_received)
    _wait_for_manifest(directory, agreed["pinned"], signals)
    plan = make_plan(encoder, source, directory, options, write=False)
    return Plan(plan.source, plan.ranges, from_runs(agreed["missing"]), plan.writer, plan.manifest)


def _wait_for_manifest(directory: epath.Path, pinned: dict[str, Any], signals: StopSignals) -> None:
    """Wait until the coordinator's manifest is seen: a network file system may show it late.

    Raises:
        JobError: it is not, so that the directory is another one here.
    """
    deadline = time.monotonic() + SEEN_WITHIN
    while (manifest := read_manifest(directory)) is None or manifest["pinned"] != pinned:
        if time.monotonic() > deadline:
            raise JobError(
                f"output {directory} does not hold the manifest that process 0 wrote there "
                f"{SEEN_WITHIN:.0f} s ago: all processes must see one and the same directory."
            )
        signals.raise_if_received()
        time.sleep(0.5)


def _score_missing(
    encoder: Encoder, plan: Plan, options: JobOptions, progress: Progress, team: Team, signals: StopSignals
) -> None:
    """Compute and write this process's share of the missing parts.

    Batches run across shards, so that only the last one of a process is ever filled up.
    """
    keys, writer, claim = plan.source.keys, plan.writer, Claim(plan.writer.directory, plan.manifest)
    mine = plan.missing[team.index :: team.count]
    open_shards = {shard: OpenShard(plan.ranges[shard]) for shard in mine}
    todo = sum(len(plan.ranges[shard]) for shard in mine)
    # Of several processes each shows its own share.
    progress.start(*((len(keys), len(keys) - todo) if team.count == 1 else (todo, 0)))
    if not mine:
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
    clock = DeviceClock()
    signals.waiting_for = clock.under_way
    progress.doing("decoding and computing the first batch")
    decoding = decode_ahead(
        plan.source,
        (index for shard in mine for index in plan.ranges[shard]),
        step.recipe,
        workers=options.workers,
        ahead=2 * step.records,
    )
    columns = tuple(sorted(options.columns))
    limit = options.failure_limit
    faults = Faults(plan.source)
    tried = failed = 0
    with (
        contextlib.closing(decoding) as decoded,
        contextlib.closing(
            score_stream(decoded, step, columns, clock, stopped=lambda: signals.received is not None)
        ) as outcomes,
    ):
        for outcome in outcomes:
            faults.require_none(outcome.record)
            bad = int(outcome.row is None)
            tried, failed = tried + 1, failed + bad
            progress.advance(1 - bad, bad, clock.share)
            number = outcome.record.index // len(plan.ranges[0])
            shard = open_shards[number]
            shard.add(outcome)
            if shard.whole:
                claim.require()
                writer.write(number, shard.columns(keys, writer.schema.names[1:]), shard.failed(keys))
                counts = (len(shard.rows), len(shard.failures), team.index, tried, failed)
                progress.shard_written(ShardReport(writer.name(number), number, *counts, clock.seconds, clock.share))
                del open_shards[number]
            claim.watch()
            limit.check(tried, failed, outcome.reason)
            if signals.received is None:  # others may have stopped for the same reason, and said so first
                team.check()
    signals.raise_if_received()
    if said := clock.verdict(options.workers):
        progress.note(said)


def _finish(plan: Plan, directory: epath.Path, options: JobOptions, team: Team, signals: StopSignals) -> Summary:
    """The coordinator waits for all, checks the tables and closes the job; everyone learns the outcome."""
    team.done()
    if not team.coordinates:
        return Summary(**team.wait_for("end", signals.raise_if_received))
    team.wait_for_all(signals.raise_if_received)
    records, claim = len(plan.source.keys), Claim(directory, plan.manifest)
    claim.require()
    failed = plan.writer.finish([len(indices) for indices in plan.ranges])
    claim.require()
    options.failure_limit.check_all(records, failed)
    write_manifest(directory, plan.manifest | {"complete": True, "scored": records - failed, "failed": failed})
    summary = Summary(records, records - failed, failed, records - plan.records_missing)
    team.publish("end", asdict(summary))
    return summary
