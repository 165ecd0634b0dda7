"""Score tables in memory: what `jepa-jax score` wrote, or bare singular values from a file, as one type."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.jobs.columns import SCORES, is_layer_score
from jepa_jax.jobs.extension import GONE
from jepa_jax.jobs.manifest import input_place, read_manifest
from jepa_jax.jobs.schema import SAVABLE
from jepa_jax.jobs.writer import FAILURES, job_parts
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.parquet import read_parquet
from jepa_jax.paths import AnyPath, require_named, to_path
from jepa_jax.spectrum import jepa_score
from jepa_jax.spectrum.scores import DEFAULT_EPS


@dataclass(frozen=True)
class ScoreTable:
    """Scored images of one set by one encoder; N images, K embedding dimensions.

    Attributes:
        name: of the set, for tables and figures.
        origin: where the images come from; a key is unique within its origin.
        keys: [N] record keys.
        scores: ``score``, ``listing_score``, where it applies ``gaussian_score``, and of each layer that was scored
            one such as ``score_layer_9``: float64 [N], nats. A layer's may have NaNs, where it has none.
        null_directions: how many of the smallest singular values are zero by the encoder's construction.
        singular_values: float32 [N, K], descending, or None where they were not saved.
        embedding: float32 [N, K], or None where it was not saved.
        manifest: of the job; empty for a file of singular values.
        failures: key and reason of every image without a score.
        groups: further text columns of the table, such as a label, to group by; ``method`` among them says of each
            score whether it is ``exact`` or ``amortised``, that is predicted, where a job has both.
        intervals: float64 [N, 2], nats: where the exact score of a predicted one lies; NaN of one that is exact. None
            where all are.
        unfamiliar: bool [N]: unlike what the predictions were calibrated on, or None.
    """

    name: str
    origin: str
    keys: np.ndarray
    scores: dict[str, np.ndarray]
    null_directions: int = 0
    singular_values: np.ndarray | None = None
    embedding: np.ndarray | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    failures: tuple[dict[str, str], ...] = ()
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    intervals: np.ndarray | None = None
    unfamiliar: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def encoder(self) -> str:
        """Name of the encoder, or ``unknown``."""
        return self.manifest.get("pinned", {}).get("encoder", "unknown")

    @property
    def encoder_id(self) -> str:
        """What two tables must share for their scores to compare: encoder, image size, precision and views."""
        pinned = self.manifest.get("pinned", {})
        shared = [str(pinned.get(name)) for name in ("encoder_digest", "image_size", "precision")]
        if pinned.get("views", 1) > 1:
            shared += [f"{pinned['views']} views", str(pinned["view_recipe"])]
        return "/".join(shared)

    @property
    def noun(self) -> str:
        """What its records are, in one word."""
        return noun_of(self.manifest)

    @property
    def predicted(self) -> np.ndarray:
        """[N] bool: whose score is predicted from one forward pass."""
        method = self.groups.get("method")
        return np.zeros(len(self), bool) if method is None else method == "amortised"

    @property
    def structural_spectrum(self) -> np.ndarray | None:
        """[N, K - nulls]: singular values without the smallest ones that are zero by construction."""
        if self.singular_values is None:
            return None
        return self.singular_values[:, : self.singular_values.shape[1] - self.null_directions]

    def take(self, rows: np.ndarray) -> ScoreTable:
        """The table of some rows, by index or mask."""

        def some(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[rows]

        return replace(
            self,
            keys=self.keys[rows],
            scores={name: values[rows] for name, values in self.scores.items()},
            singular_values=some(self.singular_values),
            embedding=some(self.embedding),
            intervals=some(self.intervals),
            unfamiliar=some(self.unfamiliar),
            groups={name: values[rows] for name, values in self.groups.items()},
        )


def read_table(
    path: str | os.PathLike, *, name: str | None = None, null_directions: int = 0, partial: bool = False
) -> ScoreTable:
    """Read scored images.

    Args:
        path: a directory of `jepa-jax score`; or a file of singular values [N, K], which are scored here:
            ``.npy``, ``.npz`` (array ``singular_values``, optionally ``embedding`` and ``key``), or ``.parquet``
            (a list column ``singular_values``, optionally ``embedding`` and ``key``).
        name: of the set; by default the last part of the path.
        null_directions: of a file, how many of the smallest values are zero by construction (2 for DINOv2).
            A job's table knows its own.
        partial: whether an unfinished job is good enough.

    Raises:
        JobError: there is no job, or it is unfinished.
        ArgumentError: the file does not hold what it should.
    """
    require_named(path, "scored set")
    place = to_path(path)
    if place.is_dir():
        return _read_job(place, name or place.name or str(place), partial)
    if not place.exists():
        raise ArgumentError(f"{path} is neither a directory of jepa-jax score nor a file.")
    return _read_spectra(place, name or place.name.removesuffix(place.suffix), null_directions)


def only(tables: Sequence[ScoreTable], keys: Sequence[str]) -> list[ScoreTable]:
    """Of each table the rows with these keys, and no failures; a table that has none of them is left out.

    Raises:
        ArgumentError: a key is in no table.
    """
    wanted = set(keys)
    if lost := sorted(wanted.difference(*(table.keys for table in tables))):
        names = ", ".join(table.name for table in tables)
        raise ArgumentError(f"keys: {len(lost):,} of {len(wanted):,} have no score in {names}, such as {lost[0]!r}.")
    found = [
        replace(table.take(np.array([key in wanted for key in table.keys], bool)), failures=()) for table in tables
    ]
    return [table for table in found if len(table)]


def noun_of(manifest: Mapping[str, Any]) -> str:
    """What a job's records are: an image each, or a clip where its encoder takes clips."""
    preprocessing = manifest.get("pinned", {}).get("preprocessing", {})
    return "image" if preprocessing.get("frames") is None else "clip"


def shared_noun(tables: Sequence[ScoreTable]) -> str:
    """What the records of all tables are, in one word."""
    nouns = {table.noun for table in tables}
    return nouns.pop() if len(nouns) == 1 else "record"


def drawn_rows(count: int, most: int | None, seed: int = 0) -> np.ndarray:
    """So many of ``count`` row numbers at most, drawn without replacement, in order; None for all."""
    if most is None or count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def named_path(text: str) -> tuple[str | None, str]:
    """``NAME=PATH`` to both, a bare path to (None, path)."""
    name, sign, path = text.partition("=")
    return (name, path) if sign and "/" not in name else (None, text)


_NO_GROUPS = ("key", "place", "bytes")
"""Columns that tell records apart, and no groups."""


def _read_job(directory: AnyPath, name: str, partial: bool) -> ScoreTable:
    manifest = read_manifest(directory)
    if manifest is None:
        raise JobError(f"{directory} has no manifest.json: it is no output of jepa-jax score.")
    parts = job_parts(directory, manifest)
    if not manifest.get("complete") and not (partial and parts):
        raise JobError(
            f"the job in {directory} is unfinished ({len(parts)} parts are there); give its jepa-jax score command "
            "again to finish it, or ask for what is there with --partial."
        )
    table, failures = read_rows(directory, manifest)
    return table_of_job(table, manifest, failures, name, str(directory.resolve()))


def read_rows(directory: AnyPath, manifest: Mapping[str, Any]) -> tuple[pa.Table, tuple[dict[str, str], ...]]:
    """All parts of a job as one table, without the rows of what has gone from its input; what has none, and why."""
    parts = pa.concat_tables([read_parquet(part) for part in job_parts(directory, manifest)])
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
    table, unsure = _without_infinite_errors(table)
    if not table.num_rows:
        raise JobError(f"the job in {directory} has no scored image; failures.parquet says why.")
    spectra, embedding = (_matrix(table, column) for column in SAVABLE)
    names = [name for name in SCORES if name in table.column_names]
    names += filter(is_layer_score, table.column_names)
    scores = {name: table[name].to_numpy().astype(np.float64) for name in names}
    ranks = table["log_volume_rank"].drop_null()  # a predicted score has none
    rank = ranks[0].as_py() if len(ranks) else None
    return ScoreTable(
        name=name,
        origin=input_place(manifest) or directory,
        keys=_texts(table["key"]),
        scores=scores,
        null_directions=0 if spectra is None or rank is None else spectra.shape[1] - rank,
        intervals=_intervals(table),
        unfamiliar=_flags(table, "unfamiliar"),
        singular_values=spectra,
        embedding=embedding,
        manifest=manifest,
        failures=failures + unsure,
        groups={
            column.name: _texts(table[column.name])
            for column in table.schema
            if column.name not in _NO_GROUPS and not column.name.startswith("_") and _is_label(column.type)
        },
    )


def _without_gone(table: pa.Table, path: AnyPath) -> tuple[pa.Table, tuple[dict[str, str], ...]]:
    """A table without the rows of what an extension found gone from the input, whose keys a file has; and these."""
    gone = set(read_parquet(path)["key"].to_pylist()) if path.exists() else set()
    keys = _texts(table["key"])
    lost = np.array([key in gone for key in keys], bool)
    reason = "it is no longer in the input (gone.parquet)"
    return table.filter(pa.array(~lost)), tuple({"key": key, "reason": reason} for key in keys[lost])


def _without_infinite_errors(table: pa.Table) -> tuple[pa.Table, tuple[dict[str, str], ...]]:
    """A table without the rows whose score is none, which earlier versions took for scores; and these, as failures."""
    known = np.isfinite(table["score"].to_numpy())
    if "score_error" in table.column_names:
        predicted = np.array(table["method"].to_pylist()) == "amortised" if "method" in table.column_names else False
        known &= np.isfinite(table["score_error"].to_numpy()) | predicted  # whose error is its interval
    keys = _texts(table["key"])[~known]
    return table.filter(known), tuple({"key": key, "reason": "the error of its score is not finite"} for key in keys)


def read_failures(directory: AnyPath) -> tuple[dict[str, str], ...]:
    """Key and reason of every image of a job that has no score."""
    path = directory / FAILURES
    return tuple(read_parquet(path).to_pylist()) if path.exists() else ()


def _read_spectra(path: AnyPath, name: str, null_directions: int) -> ScoreTable:
    columns = _read_arrays(path)
    spectra = columns.get("singular_values")
    if spectra is None or spectra.ndim != 2 or not spectra.size:
        found = {name: array.shape for name, array in columns.items()}
        raise ArgumentError(f"{path} must hold singular_values [N, K]; it holds {found}.")
    if not np.all(np.isfinite(spectra)) or spectra.min() < 0:
        raise ArgumentError(f"singular_values of {path} must be finite and not negative.")
    spectra = -np.sort(-spectra.astype(np.float32), axis=1)
    keys = columns.get("key", np.array([f"{name}/{i:06d}" for i in range(len(spectra))], object)).astype(object)
    structural = spectra[:, : spectra.shape[1] - null_directions]
    clipped = np.sum(structural < DEFAULT_EPS, axis=1)
    if clipped.all():
        raise ArgumentError(
            f"every row of singular_values of {path} has values below eps={DEFAULT_EPS:g} ({clipped.min()} or more), "
            "which the clip would decide: null_directions (--null-directions) says how many are zero by construction "
            "(DINOv2: 2)."
        )
    table = ScoreTable(
        name=name,
        origin=str(path.resolve()),
        keys=keys,
        scores={
            "score": log_volume(spectra, null_directions),
            "listing_score": log_volume(spectra, 0),
        },
        null_directions=null_directions,
        singular_values=spectra,
        embedding=columns.get("embedding"),
    )
    reason = f"of {structural.shape[1]} singular values, {{}} lie below eps={DEFAULT_EPS:g}"
    return replace(
        table.take(clipped == 0) if clipped.any() else table,
        failures=tuple({"key": str(keys[i]), "reason": reason.format(clipped[i])} for i in np.flatnonzero(clipped)),
    )


def _read_arrays(path: AnyPath) -> dict[str, np.ndarray]:
    if path.suffix == ".npy":
        return {"singular_values": np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)}
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("key", *SAVABLE) if name in arrays}
    if path.suffix == ".parquet":
        table = read_parquet(path)
        arrays = {name: _matrix(table, name) for name in SAVABLE}
        keys = {"key": _texts(table["key"])} if "key" in table.column_names else {}
        return keys | {name: array for name, array in arrays.items() if array is not None}
    raise ArgumentError(f"{path} must end in .npy, .npz or .parquet, or be a directory of jepa-jax score.")


def log_volume(singular_values: np.ndarray, null_directions: int, eps: float = DEFAULT_EPS) -> np.ndarray:
    """`jepa_jax.jepa_score` of spectra [N, K] in float64: [N], nats."""
    with float64_scope(True):
        return np.asarray(jepa_score(jnp.asarray(singular_values, jnp.float64), null_directions, eps))


def _matrix(table: pa.Table, column: str) -> np.ndarray | None:
    """A column of lists of one length as float32 [N, K]; NaN in a row that has none."""
    if column not in table.column_names:
        return None
    lists = table[column].combine_chunks()
    there = lists.is_valid().to_numpy(zero_copy_only=False)
    flat = lists.drop_null().flatten().to_numpy().astype(np.float32, copy=False)
    if not there.any():
        return None
    found = flat.reshape(int(there.sum()), -1)
    if there.all():
        return found
    rows = np.full((table.num_rows, found.shape[1]), np.nan, np.float32)
    rows[there] = found
    return rows


def _intervals(table: pa.Table) -> np.ndarray | None:
    ends = ("score_low", "score_high")
    if not all(end in table.column_names for end in ends):
        return None
    return np.stack([table[end].to_numpy().astype(np.float64) for end in ends], axis=1)


def _flags(table: pa.Table, column: str) -> np.ndarray | None:
    if column not in table.column_names:
        return None
    return np.array([bool(value) for value in table[column].to_pylist()], bool)


def _is_label(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([str(value) for value in column.to_pylist()], object)
