"""Tables on disk: one Parquet part per shard, each renamed into place when it is whole.

DIR/part-00003-of-00012.parquet            the scores of shard 3
DIR/_failures/part-00003-of-00012.parquet  its failures, if it has any; written before, so a part means all is there
DIR/failures.parquet                       all failures, once every shard is done

Each of the first two carries the digest of its job in its metadata, under ``jepa_jax.job``, and counts in that job
alone; in a directory whose manifest has no digest, which an earlier version began, they have none either.
Two processes that write the same part, as a job given twice would, write the same records: the last one stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from jepa_jax.errors import JobError
from jepa_jax.jobs.schema import FAILURE_SCHEMA
from jepa_jax.parquet import parquet_bytes, read_footer, read_parquet

FAILURES = "failures.parquet"
PARTS = "part-*.parquet"
_JOB = b"jepa_jax.job"
_TEMPORARY = f".{socket.gethostname()}-{os.getpid()}.tmp"

ABANDONED_AFTER = 86400.0
"""Seconds after which another machine's temporary file is taken to be of a process that was killed."""


class PartWriter:
    """Writes and finds the parts of one job.

    Args:
        directory: the job's output directory.
        shards: how many parts the whole table has.
        schema: columns of the score table.
        job: digest of the job, or None where an earlier version began it.
    """

    def __init__(self, directory: epath.Path, shards: int, schema: pa.Schema, job: str | None = None):
        self.directory = directory
        self.shards = shards
        self._job = None if job is None else job.encode()
        metadata = None if self._job is None else {_JOB: self._job}
        self.schema = schema.with_metadata(metadata)
        self._failure_schema = FAILURE_SCHEMA.with_metadata(metadata)

    def name(self, shard: int) -> str:
        """File name of a shard's part."""
        return f"part-{shard:05d}-of-{self.shards:05d}.parquet"

    def missing(self) -> list[int]:
        """Shards without a part of this job, in order: what another job wrote is written over."""
        paths = [(shard, folder / self.name(shard)) for folder in self._folders for shard in self._shards_in(folder)]
        with ThreadPoolExecutor(8) as pool:  # a store answers many at once
            ours = list(pool.map(lambda entry: self._may_be_ours(entry[1]), paths))
        foreign = {shard for (shard, _), own in zip(paths, ours, strict=True) if not own}
        present = set(self._shards_in(self.directory)) - foreign
        return [shard for shard in range(self.shards) if shard not in present]

    def _may_be_ours(self, path: epath.Path) -> bool:
        """Whether no other job wrote a file; of one that cannot be read, `finish` says so."""
        try:
            return self._is_ours(read_footer(path).metadata)
        except (pa.ArrowException, OSError):
            return True

    def _is_ours(self, metadata: Mapping[bytes, bytes] | None) -> bool:
        return (metadata or {}).get(_JOB) == self._job

    def write(self, shard: int, columns: Mapping[str, Any], failures: Sequence[Mapping[str, str]]) -> None:
        """Write one shard, failures first: the part itself is what says that the shard is done.

        Args:
            shard: its number.
            columns: the scored records' values by column, arrays [n] or [n, K] or lists of n.
            failures: key and reason of each of the others.
        """
        if failures:
            self._failures.mkdir(parents=True, exist_ok=True)
            failed = pa.Table.from_pylist(list(failures), schema=self._failure_schema)
            write_bytes_atomically(self._failures / self.name(shard), parquet_bytes(failed))
        else:  # of an earlier try, perhaps
            (self._failures / self.name(shard)).unlink(missing_ok=True)
        arrays = [_column(columns[field.name], field.type) for field in self.schema]
        scored = pa.Table.from_arrays(arrays, schema=self.schema)
        write_bytes_atomically(self.directory / self.name(shard), parquet_bytes(scored))

    def with_failures(self) -> list[int]:
        """Finished shards of which some record failed."""
        missing, failed = set(self.missing()), self._shards_in(self._failures)
        return [shard for shard in failed if shard not in missing]

    def discard(self, shards: Sequence[int]) -> None:
        """Remove finished shards, so that they are computed again."""
        for shard in shards:
            (self.directory / self.name(shard)).unlink(missing_ok=True)

    def finish(self, sizes: Sequence[int]) -> int:
        """Check that every record is in the tables, and write ``failures.parquet``.

        Args:
            sizes: the number of records of each shard.

        Returns:
            How many records failed.

        Raises:
            JobError: a part is damaged, or does not hold as many records as its shard.
        """
        tables = [self._failure_schema.empty_table()]
        with_failures = set(self._shards_in(self._failures))
        for shard, size in enumerate(sizes):
            path = self.directory / self.name(shard)
            remedy = "remove it, and give the same command"
            try:
                footer = read_footer(path)
                found, ours = footer.num_rows, self._is_ours(footer.metadata)
                if shard in with_failures:
                    tables.append(read_parquet(self._failures / self.name(shard)))
                    found, ours = found + tables[-1].num_rows, ours and self._is_ours(tables[-1].schema.metadata)
                if not ours:
                    found, remedy = "what another job wrote", "once that one has ended, the same command goes on"
            except FileNotFoundError:
                found, remedy = "nothing, for it was removed", "the same command computes it again"
            except (pa.ArrowException, OSError) as error:
                found = f"no table ({error})"
            if found != size:
                raise JobError(f"part {path} should hold {size} records and holds {found}; {remedy}.")
        merged = pa.concat_tables(tables)
        write_bytes_atomically(self.directory / FAILURES, parquet_bytes(merged))
        self._remove_leftovers()
        return merged.num_rows

    @property
    def _folders(self) -> tuple[epath.Path, epath.Path]:
        return self.directory, self._failures

    @property
    def _failures(self) -> epath.Path:
        return self.directory / "_failures"

    def _shards_in(self, folder: epath.Path) -> list[int]:
        present = {path.name for path in folder.iterdir()} if folder.exists() else set()
        return [shard for shard in range(self.shards) if self.name(shard) in present]

    def _remove_leftovers(self) -> None:
        """Temporary files of processes that were killed while they wrote: not of a second job that still writes."""
        for folder in self._folders:
            for path in folder.iterdir() if folder.exists() else ():
                if path.name.startswith(".") and path.name.endswith(".tmp") and _abandoned(path):
                    path.unlink(missing_ok=True)


def _abandoned(temporary: epath.Path) -> bool:
    """Whether the process that wrote a temporary file is gone; of another machine's only the file's age can tell."""
    machine, _, process = temporary.name.removesuffix(".tmp").rpartition("-")
    if machine.endswith(f".{socket.gethostname()}") and process.isdecimal():
        return int(process) == os.getpid() or not _runs(int(process))
    try:
        return time.time() - temporary.stat().mtime > ABANDONED_AFTER
    except OSError:
        return False  # renamed into its place meanwhile


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user
    return True


def write_parquet_atomically(path: epath.Path, table: pa.Table) -> None:
    """Write one Parquet file whole or not at all."""
    write_bytes_atomically(path, parquet_bytes(table))


def write_bytes_atomically(path: epath.Path, data: bytes) -> None:
    """Write under a temporary name of this process beside the target, then rename: no reader sees half a file.

    Raises:
        JobError: it cannot be written; the temporary file is gone then, and what was there before is untouched.
    """
    with temporary_beside(path, data) as temporary:
        temporary.replace(path)


@contextlib.contextmanager
def temporary_beside(path: epath.Path, data: bytes) -> Iterator[epath.Path]:
    """A whole file under a temporary name of this process beside ``path``, removed at the end if it is still there.

    Raises:
        JobError: something cannot be written, here or in the body.
    """
    temporary = path.parent / f".{path.name}{_TEMPORARY}"
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            if "://" not in os.fspath(path):
                os.fsync(stream.fileno())  # else a power cut after the rename could leave an empty part
        yield temporary
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make space, and" if full else "once it can be written,"
        raise JobError(
            f"{path} cannot be written: {error.strerror or error}. Every part that is there is whole: {remedy} "
            "the same command resumes the job."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _column(values: Any, dtype: pa.DataType) -> pa.Array:
    if not pa.types.is_fixed_size_list(dtype):
        return pa.array(values, dtype)
    flat = np.ascontiguousarray(values, dtype.value_type.to_pandas_dtype()).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=dtype)
