"""What a job is to do: a new one, one that is resumed, one whose input has grown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources import Records
from jepa_jax.jobs.extension import described, extended, gone_table, what_is_new
from jepa_jax.jobs.measured_noise import noise_of_first_images, require_measurable
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.output.manifest import read_manifest, require_same, write_manifest
from jepa_jax.jobs.output.ownership import begin
from jepa_jax.jobs.output.parts import GONE, PartWriter
from jepa_jax.jobs.output.records import JobRecords, default_shard_size, pin_records, write_records
from jepa_jax.jobs.pins import build_manifest
from jepa_jax.jobs.processes.team import Team
from jepa_jax.jobs.upgrade import require_same_scores, upgrades
from jepa_jax.parquet import parquet_bytes
from jepa_jax.paths import AnyPath, write_whole


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

    pinned: JobRecords
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


def make_plan(
    encoder: Encoder, source: Records, directory: AnyPath, options: JobOptions, write: bool, team: Team | None = None
) -> Plan:
    """What a job would do; with ``write``, the directory is made the job's.

    Raises:
        JobError: it belongs to another job.
    """
    team = team or Team()
    source.require_fit(encoder.spec.preprocess, encoder.spec.name)
    require_measurable(encoder, options)
    if options.retry_failed and team.count > 1 and team.run is None:
        raise ArgumentError(
            "retry_failed: processes that were started one by one would take each other's new parts for old ones. "
            "Start them with --processes or under srun, or give --retry-failed to one process alone."
        )
    old = read_manifest(directory)
    if old is None:
        source.require_selected()
        measured = write and options.noise_images and options.amortise is None  # a stage that computes scores measures
        noise = noise_of_first_images(encoder, source, options) if measured else None
        size = options.shard_size or default_shard_size(len(source.keys))
        job = _Job(encoder, options, directory, team, JobRecords(source, (len(source.keys),)), noise=noise, size=size)
        if write:
            old = begin(directory, job.manifest)  # another job's, if it was faster
    if old is not None:
        job = _resumed(encoder, source, directory, options, write, team, old)
    again = job.writer.with_failures() if options.retry_failed else []
    missing = job.writer.missing()
    if write:
        if old is not None and old.get("complete") and (again or missing):
            # Before anything is taken away: readers must not take it for complete.
            write_manifest(directory, job.manifest)
        job.writer.discard([*again, *job.writer.foreign])
        _drop_superseded(job)
    missing = sorted({*missing, *again})
    return Plan(job.pinned, job.pinned.shards(job.size), missing, job.writer, job.manifest, tuple(job.notes))


class _Job:
    """A job's manifest and its writer, for some records.

    Args:
        encoder: of the job.
        options: of the job.
        directory: of the job.
        team: this process among the others.
        pinned: the records.
        noise: what was measured.
        size: records per part.
        old: the manifest that stands in the directory, if any.
    """

    def __init__(
        self,
        encoder: Encoder,
        options: JobOptions,
        directory: AnyPath,
        team: Team,
        pinned: JobRecords,
        *,
        noise: Any,
        size: int,
        old: dict[str, Any] | None = None,
    ):
        self.pinned, self.size, self.notes = pinned, size, []
        first = replace(pinned.source, keys=pinned.source.keys[: pinned.generations[0]])
        self.manifest = build_manifest(encoder, first, options, size, noise)
        if old is not None:
            self.manifest |= {name: old[name] for name in ("job", "extensions", "upgrades") if name in old}
        self._schema = options.schema(encoder)
        self._directory, self._team = directory, team
        self.writer = self._writer()

    def _writer(self) -> PartWriter:
        parts = len(self.pinned.shards(self.size))
        return PartWriter(self._directory, parts, self._schema, self.manifest["job"], self._team.run)

    def extend(self, source: Records) -> None:
        """Take in what is new."""
        grown = extended(self.pinned, source, self.writer)
        self.notes.append(what_is_new(self.pinned, grown))
        self.pinned, self.manifest["extensions"] = grown, described(grown)
        self.writer = self._writer()


def _resumed(
    encoder: Encoder,
    source: Records,
    directory: AnyPath,
    options: JobOptions,
    write: bool,
    team: Team,
    old: dict[str, Any],
) -> _Job:
    """The job that a directory holds, if it is the one that is asked for; extended, where that is asked for."""
    pinned, noise = pin_records(directory, source, old, write, options.extend), old.get("noise")
    size = options.shard_size or old["pinned"].get("shard_size") or default_shard_size(len(source.keys))
    job = _Job(encoder, options, directory, team, pinned, noise=noise, size=size, old=old)
    # A prediction states no rounding error to compare within.
    changed = {} if options.amortises else upgrades(old, job.manifest)
    then = {name: version for name, (version, _) in changed.items()}
    require_same(directory, old, job.manifest | {"pinned": job.manifest["pinned"] | then})
    if changed:
        record = require_same_scores(encoder, pinned.source, job.writer, options, noise, changed)
        job.manifest["upgrades"] = [*old.get("upgrades", []), record]
        job.notes.append(
            f"Libraries have changed since the job began ({changed}); {record['rows_compared']} finished rows differ "
            f"by {record['largest_difference_nats']:.2g} nats at most."
        )
        if write:
            write_manifest(directory, job.manifest)
    if options.extend:
        job.extend(source)
        if write:
            if job.manifest["extensions"] != old.get("extensions", []):
                write_records(directory, job.pinned, only=len(job.pinned.generations) - 1)
                write_manifest(directory, job.manifest)
            write_whole(directory / GONE, parquet_bytes(gone_table(job.pinned)))
    return job


def _drop_superseded(job: _Job) -> None:
    """Take out of finished parts the rows of pictures that have changed since."""
    by_shard: dict[int, list[str]] = {}
    for index in job.pinned.superseded():
        by_shard.setdefault(job.pinned.shard_of(index, job.size), []).append(job.pinned.source.keys[index])
    for shard, keys in by_shard.items():
        job.writer.drop(shard, keys)
