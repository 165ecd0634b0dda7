"""Tables on disk: one Parquet part per shard, each put into its place when it is whole.

DIR/scores/part-00003.parquet     the scores of shard 3: this folder is a data set, whatever reads Parquet
DIR/_failures/part-00003.parquet  its failures, if it has any; written before, so a part means all is there
DIR/failures.parquet              all failures, once every shard is done

Each of the first two carries the digest of its job in its metadata, under ``jepa_jax.job``, and counts in that job
alone. Two processes that write the same part, as a job given twice would, write the same records: the last one stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from jepa_jax.errors import JobError
from jepa_jax.jobs.output.schema import FAILURE_SCHEMA
from jepa_jax.parquet import parquet_bytes, read_footer, read_parquet
from jepa_jax.paths import AnyPath, make_folder, names_in, remove, remove_abandoned, write_whole

SCORES = "scores"
"""Folder of the parts, in the output directory."""

FAILURES = "failures.parquet"

GONE = "gone.parquet"
"""Keys of the tables that are no longer in the input, where a job was extended."""

_PART = re.compile(r"part-(\d{5,})\.parquet")
_JOB = b"jepa_jax.job"
_RUN = b"jepa_jax.run"
_AT_ONCE = 16


def job_parts(directory: AnyPath) -> list[AnyPath]:
    """The parts of a job that are there, in order."""
    folder = directory / SCORES
    found = ((int(match[1]), name) for name in names_in(folder) if (match := _PART.fullmatch(name)))
    return [folder / name for _, name in sorted(found)]


class PartWriter:
    """Writes and finds the parts of one job.

    Args:
        directory: the job's output directory.
        shards: how many parts the whole table has.
        schema: columns of the score table.
        job: digest of the job.
        run: of the processes that were started together; the parts carry it.
    """

    def __init__(
        self,
        directory: AnyPath,
        shards: int,
        schema: pa.Schema,
        job: str,
        run: str | None = None,
    ):
        self.directory = directory
        self.shards = shards
        self._scores = directory / SCORES
        self._failures = directory / "_failures"
        self.foreign: list[int] = []
        self._job = job.encode()
        self._run = None if run is None else run.encode()
        marks = {_JOB: self._job} | ({} if self._run is None else {_RUN: self._run})
        self.schema = schema.with_metadata(marks)
        self._failure_schema = FAILURE_SCHEMA.with_metadata(marks)

    def name(self, shard: int) -> str:
        """File name of a shard's part."""
        return f"part-{shard:05d}.parquet"

    def written(self) -> set[int]:
        """Shards with a part, whoever wrote it."""
        return self._shards_in(self._scores)

    def is_written(self, shard: int) -> bool:
        """Whether a shard has a part, whoever wrote it."""
        return (self._scores / self.name(shard)).exists()

    def missing(self) -> list[int]:
        """Shards without a part of this job, in order; those that another job wrote are remembered as ``foreign``."""
        paths = [
            (shard, folder / self.name(shard))
            for folder in (self._scores, self._failures)
            for shard in sorted(self._shards_in(folder))
        ]
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # a store answers many at once
            ours = list(pool.map(lambda entry: self._may_be_ours(entry[1]), paths))
        foreign = {shard for (shard, _), own in zip(paths, ours, strict=True) if not own}
        self.foreign = sorted(foreign & self.written())
        present = self.written() - foreign
        return [shard for shard in range(self.shards) if shard not in present]

    def _may_be_ours(self, path: AnyPath) -> bool:
        """Whether no other job wrote a file; of one that cannot be read, `finish` says so."""
        try:
            return self._is_ours(read_footer(path).metadata)
        except (pa.ArrowException, OSError):
            return True

    def _is_ours(self, metadata: Mapping[bytes, bytes] | None) -> bool:
        return (metadata or {}).get(_JOB) == self._job

    def write(self, shard: int, columns: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]) -> None:
        """Write one shard, failures first: the part itself is what says that the shard is done.

        Args:
            shard: its number.
            columns: the scored records' values by column, arrays [n] or [n, K] or lists of n.
            failures: key, reason and size of each of the others.
        """
        arrays = [_column(columns[field.name], field.type) for field in self.schema]
        scored = pa.Table.from_arrays(arrays, schema=self.schema)
        self._put(shard, scored, pa.Table.from_pylist(list(failures), schema=self._failure_schema))

    def put(self, shard: int, scored: pa.Table, failed: pa.Table) -> None:
        """Write one shard from tables of the columns that this writer has."""
        scored = scored.select(self.schema.names).cast(self.schema).replace_schema_metadata(self.schema.metadata)
        failed = failed.select(self._failure_schema.names).cast(self._failure_schema)
        self._put(shard, scored, failed.replace_schema_metadata(self._failure_schema.metadata))

    def _put(self, shard: int, scored: pa.Table, failed: pa.Table) -> None:
        if failed.num_rows:
            make_folder(self._failures)
            write_whole(self._failures / self.name(shard), parquet_bytes(failed))
        else:  # of an earlier try, perhaps
            remove(self._failures / self.name(shard))
        make_folder(self._scores)
        write_whole(self._scores / self.name(shard), parquet_bytes(scored))

    def with_failures(self) -> list[int]:
        """Finished shards of which some record failed, before this run."""
        missing = set(self.missing())
        found = sorted(shard for shard in self._shards_in(self._failures) if shard not in missing)
        return [shard for shard in found if self._run is None or self._run != self._run_of(shard)]

    def _run_of(self, shard: int) -> bytes | None:
        return (read_footer(self._failures / self.name(shard)).metadata or {}).get(_RUN)

    def discard(self, shards: Sequence[int]) -> None:
        """Remove finished shards, so that they are computed again."""
        for shard in shards:
            remove(self._scores / self.name(shard))

    def drop(self, shard: int, keys: Sequence[str]) -> None:
        """Take records out of a shard, if it is finished and has them still."""
        if shard not in self.written():
            return
        scored, failed = self.read(shard)
        dropped = set(keys)
        kept = [
            table.filter(pa.array([key not in dropped for key in table["key"].to_pylist()], pa.bool_()))
            for table in (scored, failed)
        ]
        if kept[0].num_rows + kept[1].num_rows < scored.num_rows + failed.num_rows:
            self._put(shard, kept[0], kept[1])

    def read(self, shard: int, columns: Sequence[str] | None = None) -> tuple[pa.Table, pa.Table]:
        """The scores and the failures of a finished shard."""
        scored = read_parquet(self._scores / self.name(shard), columns)
        try:
            return scored, read_parquet(self._failures / self.name(shard))
        except FileNotFoundError:
            return scored, self._failure_schema.empty_table()

    def finish(self, sizes: Sequence[int]) -> int:
        """Check that every record is in the tables, and write ``failures.parquet``.

        Args:
            sizes: the number of records of each shard.

        Returns:
            How many records failed.

        Raises:
            JobError: a part is damaged, or does not hold as many records as its shard.
        """
        with_failures = self._shards_in(self._failures)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            tables = list(pool.map(lambda shard: self._checked(shard, sizes[shard], with_failures), range(len(sizes))))
        merged = pa.concat_tables([self._failure_schema.empty_table(), *(t for t in tables if t is not None)])
        merged = merged.replace_schema_metadata(self._failure_schema.metadata)
        write_whole(self.directory / FAILURES, parquet_bytes(merged))
        self._remove_leftovers()
        return merged.num_rows

    def _checked(self, shard: int, size: int, with_failures: set[int]) -> pa.Table | None:
        """The failures of a shard that is whole."""
        path, failed = self._scores / self.name(shard), None
        remedy = "remove it, and give the same command"
        try:
            footer = read_footer(path)
            found, ours = footer.num_rows, self._is_ours(footer.metadata)
            if shard in with_failures:
                failed = read_parquet(self._failures / self.name(shard))
                found, ours = found + failed.num_rows, ours and self._is_ours(failed.schema.metadata)
            if not ours:
                found, remedy = "what another job wrote", "once that one has ended, the same command goes on"
        except FileNotFoundError:
            found, remedy = "nothing, for it was removed", "the same command computes it again"
        except (pa.ArrowException, OSError) as error:
            found = f"no table ({error})"
        if found != size:
            raise JobError(f"part {path} should hold {size} records and holds {found}; {remedy}.")
        return failed

    def _shards_in(self, folder: AnyPath) -> set[int]:
        numbers = {int(match[1]) for name in names_in(folder) if (match := _PART.fullmatch(name))}
        return {number for number in numbers if number < self.shards}

    def _remove_leftovers(self) -> None:
        """Temporary files of processes that were killed while they wrote: not of a second job that still writes."""
        for folder in dict.fromkeys((self.directory, self._scores, self._failures)):
            remove_abandoned(folder)


def _column(values: Any, dtype: pa.DataType) -> pa.Array:
    if not pa.types.is_fixed_size_list(dtype):
        return pa.array(values, dtype, from_pandas=True)  # a NaN is a null, which no reader sorts among the numbers
    flat = np.ascontiguousarray(values, dtype.value_type.to_pandas_dtype()).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=dtype)
