"""The records of a job, written down when it begins: each keeps its index, whatever becomes of the input."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
from etils import epath

from jepa_jax.errors import JobError
from jepa_jax.images.sources.records import Records
from jepa_jax.jobs.writer import write_parquet_atomically
from jepa_jax.parquet import read_parquet

NAME = "_records.parquet"
"""Hidden from readers of the data set by its underscore."""


def write_records(directory: epath.Path, source: Records) -> None:
    """Write the keys down."""
    write_parquet_atomically(directory / NAME, pa.table({"key": pa.array(source.keys, pa.large_string())}))


def pin_records(directory: epath.Path, source: Records, digest: str, write: bool) -> Records:
    """The records as they were when the job began.

    Records that have vanished since are there and unusable, so that a job can still be resumed.

    Args:
        directory: of the job.
        source: the input as it is now.
        digest: `keys_digest` of the job's records.
        write: whether they may be written down, where a job was killed before it did so, or is about to.

    Raises:
        JobError: the input has records that it had not then, or is another one.
    """
    try:
        keys = read_parquet(directory / NAME)["key"].to_pylist()
        if keys_digest(keys) != digest:
            raise KeyError("these are not the records that manifest.json tells of")
    except (OSError, pa.ArrowException, KeyError) as error:
        if keys_digest(source.keys) == digest:
            if write:
                write_records(directory, source)
            return source
        if isinstance(error, FileNotFoundError):
            raise JobError(
                f"output {directory} belongs to another job, whose records are not those of the input {source.name}; "
                "name a new output directory."
            ) from error
        raise JobError(f"{directory / NAME} cannot be read ({error}); use a new output directory.") from error
    if len(keys) == len(source.keys) and all(map(str.__eq__, keys, source.keys)):
        return source
    known = set(keys)
    new = [key for key in source.keys if key not in known]
    vanished = known.difference(source.keys)
    if new or source.positional or source.selected:
        raise JobError(
            f"output {directory} belongs to another job (input: {len(keys)} records there and {len(source.keys)} now; "
            f"{_some(new)} new, {_some(sorted(vanished))} vanished). Score new records in a new output directory."
        )
    return source.arranged(keys)


def keys_digest(keys: Sequence[str]) -> str:
    """SHA-256 over all keys in order: the same digest means the same records in the same shards."""
    state = hashlib.sha256()
    for key in keys:
        state.update(key.encode())
        state.update(b"\0")
    return state.hexdigest()


def _some(keys: Sequence[str]) -> str:
    return f"{len(keys)}" + (f" (such as {keys[0]!r})" if keys else "")
