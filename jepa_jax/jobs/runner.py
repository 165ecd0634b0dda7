"""A scoring job: from a source of images to a complete table, resumable at any shard.

The unit of work is a shard, a fixed run of record indices. A shard is done when its part exists; a
resumed job computes the parts that are missing and nothing else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from etils import epath

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.plan import default_images_per_step
from jepa_jax.jacobian.precision import Precision
from jepa_jax.jobs.manifest import JobSpec, build_manifest, read_manifest, require_same, write_manifest
from jepa_jax.jobs.pipeline import Decoded, decode_ahead
from jepa_jax.jobs.sources import FolderSource
from jepa_jax.jobs.writer import PartWriter, score_schema
from jepa_jax.scorer import score
from jepa_jax.scoring import ScoreResult

SAVABLE = ("singular_values", "embedding")
"""Optional columns of the score table."""


class Progress(Protocol):
    """Whoever watches a job."""

    def start(self, total: int, done: int) -> None:
        """The job has ``total`` records, ``done`` of which an earlier run finished."""
        ...

    def advance(self, scored: int, failed: int) -> None:
        """So many more records are scored or failed."""
        ...

    def shard_written(self, name: str, scored: int, failed: int) -> None:
        """A part is on disk."""
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


@dataclass
class _OpenShard:
    """A shard whose records are partly known."""

    size: int
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    failures: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return len(self.rows) + len(self.failures) == self.size


def run_job(
    encoder: Encoder,
    source: FolderSource,
    output: epath.PathLike,
    progress: Progress,
    *,
    precision: Precision = "float32",
    batch_size: int | None = None,
    shard_size: int | None = None,
    columns: tuple[str, ...] = (),
    workers: int = 2,
) -> Summary:
    """Score every record of a source, or what an earlier run left of it.

    Args:
        encoder: scores the images, by its own recipe.
        source: the records.
        output: directory of the table; a job that was begun there is resumed.
        progress: is told what happens.
        precision: of the scores.
        batch_size: images per device step; by default as many as fill the device.
        shard_size: records per part; by default about 64 parts of 8 to 1,024 records.
        columns: optional columns, of ``singular_values`` and ``embedding``.
        workers: decoding threads.

    Raises:
        ArgumentError: an option cannot work; JobError: the directory belongs to another job.
    """
    for name, value in (("batch_size", batch_size), ("shard_size", shard_size), ("workers", workers)):
        if value is not None and value < 1:
            raise ArgumentError(f"{name}={value} must be at least 1.")
    unknown = set(columns) - set(SAVABLE)
    if unknown:
        raise ArgumentError(f"columns {sorted(unknown)} cannot be saved; choose from {', '.join(SAVABLE)}.")
    directory = epath.Path(output).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    old = read_manifest(directory)
    size = shard_size or (old["pinned"].get("shard_size") if old else None) or _shard_size(len(source.keys))
    job = JobSpec(precision, size, tuple(sorted(columns)))
    manifest = build_manifest(encoder, source.keys, job, str(source.root))
    if old is None:
        write_manifest(directory, manifest)
    else:
        require_same(directory, old, manifest)
    spec = encoder.spec
    writer = PartWriter(
        directory,
        math.ceil(len(source.keys) / size),
        score_schema(spec.embedding_size, spec.gaussian_embedding, job.columns),
    )
    resumed = _run_missing(encoder, source, writer, job, progress, batch_size, workers)
    failed = writer.merge_failures()
    manifest |= {"complete": True, "scored": len(source.keys) - failed, "failed": failed}
    write_manifest(directory, manifest)
    return Summary(len(source.keys), len(source.keys) - failed, failed, resumed)


def _run_missing(
    encoder: Encoder,
    source: FolderSource,
    writer: PartWriter,
    job: JobSpec,
    progress: Progress,
    batch_size: int | None,
    workers: int,
) -> int:
    """Compute and write every missing part; returns how many records were there already."""
    total = len(source.keys)
    ranges = {
        shard: range(shard * job.shard_size, min((shard + 1) * job.shard_size, total)) for shard in writer.missing()
    }
    todo = sum(map(len, ranges.values()))
    progress.start(total, total - todo)
    shards = {shard: _OpenShard(len(indices)) for shard, indices in ranges.items()}
    batch = batch_size or _batch_size(encoder)
    decoded = decode_ahead(
        source,
        (index for indices in ranges.values() for index in indices),
        encoder.spec.preprocess,
        workers=workers,
        ahead=2 * batch + workers,
    )
    scorer = functools.partial(score, encoder, precision=job.precision)  # pyright: ignore[reportArgumentType]
    for index, row, reason in _outcomes(decoded, scorer, batch, job.columns):
        number = index // job.shard_size
        shard = shards[number]
        if row is None:
            shard.failures[index] = {"key": source.keys[index], "reason": reason}
        else:
            shard.rows[index] = {"key": source.keys[index], **row}
        progress.advance(scored=int(row is not None), failed=int(row is None))
        if shard.whole:
            ordered = [row for _, row in sorted(shard.rows.items())]
            writer.write(number, ordered, [failure for _, failure in sorted(shard.failures.items())])
            progress.shard_written(writer.name(number), len(shard.rows), len(shard.failures))
            del shards[number]
    return total - todo


def _outcomes(
    decoded: Iterator[Decoded], scorer: Any, batch_size: int, columns: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """(index, row, "") of each scored record and (index, None, reason) of each failed one.

    Batches run across shards, so that only the last one of a job is ever filled up: with copies of its
    last image, because another batch size would have to be compiled.
    """
    pending: list[Decoded] = []
    for record in decoded:
        if record.image is None:
            yield record.index, None, record.reason
            continue
        pending.append(record)
        if len(pending) == batch_size:
            yield from _score_batch(pending, scorer, batch_size, columns)
            pending = []
    if pending:
        yield from _score_batch(pending, scorer, batch_size, columns)


def _score_batch(
    records: list[Decoded], scorer: Any, batch_size: int, columns: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    images = [record.image for record in records if record.image is not None]
    images += [images[-1]] * (batch_size - len(images))
    rows = _rows(scorer(np.stack(images)), columns)
    for record, row in zip(records, rows, strict=False):
        if math.isfinite(row["score"]):
            yield record.index, row, ""
        else:
            yield record.index, None, f"the score is {row['score']}: the encoder's output or Jacobian overflows"


def _rows(result: ScoreResult, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """A result on the device to one plain row per image."""
    table = {"score": result.score, "listing_score": result.listing_score}
    if result.gaussian_score is not None:
        table["gaussian_score"] = result.gaussian_score
    arrays = {name: np.asarray(value).tolist() for name, value in table.items()}
    arrays |= {name: list(np.asarray(getattr(result, name), np.float32)) for name in columns}
    count = len(arrays["score"])
    return [
        {name: values[i] for name, values in arrays.items()} | {"log_volume_rank": result.log_volume_rank}
        for i in range(count)
    ]


def _batch_size(encoder: Encoder) -> int:
    """Images that the engine would compute side by side; more in one call gains nothing."""
    side = encoder.spec.image_size
    return min(64, default_images_per_step(3 * side * side, encoder.spec.embedding_size))


def _shard_size(records: int) -> int:
    """About 64 shards: a killed job loses little, a large one does not drown in files."""
    return min(1024, max(8, math.ceil(records / 64)))
