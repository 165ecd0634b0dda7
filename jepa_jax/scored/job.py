"""What a job left in its directory, as scored images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from jepa_jax.errors import JobError
from jepa_jax.jobs.output.columns import SCORES, is_layer_score
from jepa_jax.jobs.output.manifest import input_place, read_manifest
from jepa_jax.jobs.output.parts import FAILURES, GONE, job_parts
from jepa_jax.jobs.output.schema import SAVABLE
from jepa_jax.parquet import read_parquet
from jepa_jax.paths import AnyPath
from jepa_jax.scored.arrow import flags, intervals, is_label, matrix, texts
from jepa_jax.scored.table import ScoreTable

_NO_GROUPS = ("key", "place", "bytes")
"""Columns that tell records apart, and no groups."""


def read_job(directory: AnyPath, name: str, partial: bool) -> ScoreTable:
    """A directory of `jepa-jax score`; see `jepa_jax.scored.reading.read_table`."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise JobError(f"{directory} has no manifest.json: it is no output of jepa-jax score.")
    parts = job_parts(directory)
    if not manifest.get("complete") and not (partial and parts):
        raise JobError(
            f"the job in {directory} is unfinished ({len(parts)} parts are there); give its jepa-jax score command "
            "again to finish it, or ask for what is there with --partial."
        )
    table, failures = read_rows(directory)
    return table_of_job(table, manifest, failures, name, str(directory.resolve()))


def read_rows(directory: AnyPath) -> tuple[pa.Table, tuple[dict[str, str], ...]]:
    """All parts of a job as one table, without the rows of what has gone from its input; what has none, and why."""
    parts = pa.concat_tables([read_parquet(part) for part in job_parts(directory)])
    table, gone = _without_gone(parts, directory / GONE)
    return table, read_failures(directory) + gone


def table_of_job(
    table: pa.Table, manifest: dict[str, Any], failures: tuple[dict[str, str], ...], name: str, directory: str
) -> ScoreTable:
    """A job's rows as a `ScoreTable`.

    Args:
        table: all parts.
        manifest: of the job.
        failures: key and reason of what has no score.
        name: of the set.
        directory: of the job, where it does not say what its input was.

    Raises:
        JobError: no image is scored.
    """
    if not table.num_rows:
        raise JobError(f"the job in {directory} has no scored image; failures.parquet says why.")
    spectra, embedding = (matrix(table, column) for column in SAVABLE)
    names = [name for name in SCORES if name in table.column_names]
    names += filter(is_layer_score, table.column_names)
    scores = {name: table[name].to_numpy().astype(np.float64) for name in names}
    ranks = table["log_volume_rank"].drop_null()  # a predicted score has none
    rank = ranks[0].as_py() if len(ranks) else None
    return ScoreTable(
        name=name,
        origin=input_place(manifest) or directory,
        keys=texts(table["key"]),
        scores=scores,
        null_directions=0 if spectra is None or rank is None else spectra.shape[1] - rank,
        intervals=intervals(table),
        unfamiliar=flags(table, "unfamiliar"),
        singular_values=spectra,
        embedding=embedding,
        manifest=manifest,
        failures=failures,
        groups={
            column.name: texts(table[column.name])
            for column in table.schema
            if column.name not in _NO_GROUPS and not column.name.startswith("_") and is_label(column.type)
        },
    )


def _without_gone(table: pa.Table, path: AnyPath) -> tuple[pa.Table, tuple[dict[str, str], ...]]:
    """A table without the rows of what an extension found gone from the input, whose keys a file has; and these."""
    gone = set(read_parquet(path)["key"].to_pylist()) if path.exists() else set()
    keys = texts(table["key"])
    lost = np.array([key in gone for key in keys], bool)
    reason = "it is no longer in the input (gone.parquet)"
    return table.filter(pa.array(~lost)), tuple({"key": key, "reason": reason} for key in keys[lost])


def read_failures(directory: AnyPath) -> tuple[dict[str, str], ...]:
    """Key and reason of every image of a job that has no score."""
    path = directory / FAILURES
    return tuple(read_parquet(path).to_pylist()) if path.exists() else ()
