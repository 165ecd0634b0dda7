"""The records of a job, written down when it begins: each keeps its index, whatever becomes of the input.

A job that is extended has several generations of records, each in a file of its own: what there was when it began, and
what each extension found new. A record whose picture changed is in the later generation again, and superseded in the
earlier one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jepa_jax.errors import JobError
from jepa_jax.images.sources.records import Records
from jepa_jax.parquet import parquet_bytes, read_parquet
from jepa_jax.paths import AnyPath, write_whole


@dataclass(frozen=True)
class JobRecords:
    """The records of a job.

    Attributes:
        source: all of them, generation after generation; what is no longer in the input is there and unusable.
        generations: how many records each has.
        gone: keys that are no longer in the input.
    """

    source: Records
    generations: tuple[int, ...]
    gone: tuple[str, ...] = ()

    def superseded(self) -> set[int]:
        """Indices of records that a later generation has again."""
        if len(self.generations) == 1:
            return set()
        last = {key: index for index, key in enumerate(self.source.keys)}
        return {index for index, key in enumerate(self.source.keys) if last[key] != index}

    def shards(self, size: int) -> list[list[int] | range]:
        """The record indices of every shard; each generation begins one."""
        superseded, start, found = self.superseded(), 0, []
        for records in self.generations:
            for one in shard_ranges(records, size):
                indices = range(start + one.start, start + one.stop)
                found.append([i for i in indices if i not in superseded] if superseded else indices)
            start += records
        return found

    def shard_of(self, index: int, size: int) -> int:
        """The shard that holds, or held, a record."""
        shard = 0
        for records in self.generations:
            if index < records:
                return shard + index // size
            index, shard = index - records, shard + -(-records // size)
        raise IndexError(index)

    def files(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Name and keys of every generation's file."""
        start = 0
        for number, records in enumerate(self.generations):
            yield records_file(number), self.source.keys[start : start + records]
            start += records


def shard_ranges(records: int, shard_size: int) -> list[range]:
    """The record indices of every shard."""
    return [range(start, min(start + shard_size, records)) for start in range(0, records, shard_size)]


def default_shard_size(records: int) -> int:
    """About 64 shards: a killed job loses little, a large one does not drown in files."""
    return min(1024, max(8, math.ceil(records / 64)))


def records_file(generation: int) -> str:
    """Name of a generation's file; readers of data sets pass over what begins with an underscore."""
    return f"_records-{generation}.parquet" if generation else "_records.parquet"


def write_records(directory: AnyPath, pinned: JobRecords, only: int | None = None) -> None:
    """Write the keys down: of all generations, or of one."""
    for number, (name, keys) in enumerate(pinned.files()):
        if only is None or number == only:
            write_whole(directory / name, parquet_bytes(pa.table({"key": pa.array(keys, pa.large_string())})))


def pin_records(
    directory: AnyPath, source: Records, manifest: dict[str, Any], write: bool, extend: bool
) -> JobRecords:
    """The records as they were when the job began, or was extended last.

    Records that have vanished since are there and unusable, so that a job can still be resumed.

    Args:
        directory: of the job.
        source: the input as it is now.
        manifest: of the job.
        write: whether they may be written down, where a job was killed before it did so, or is about to.
        extend: whether the input may have further records; see `jepa_jax.jobs.extension`.

    Raises:
        JobError: the input has records that it had not then, or is another one.
    """
    digests = [manifest["pinned"].get("keys_sha256", "")]
    digests += [extension["keys_sha256"] for extension in manifest.get("extensions", ())]
    try:
        known = [_read_keys(directory, number, digest) for number, digest in enumerate(digests)]
    except (OSError, pa.ArrowException, KeyError) as error:
        if len(digests) == 1 and keys_digest(source.keys) == digests[0]:
            pinned = JobRecords(source, (len(source.keys),))
            if write:
                write_records(directory, pinned)
            return pinned
        if isinstance(error, FileNotFoundError):
            raise JobError(
                f"output {directory} belongs to another job, whose records are not those of the input {source.name}; "
                "name a new output directory."
            ) from error
        raise JobError(f"its records cannot be read in {directory} ({error}); use a new output directory.") from error
    keys = [key for generation in known for key in generation]
    counts = tuple(map(len, known))
    if len(keys) == len(source.keys) and all(map(str.__eq__, keys, source.keys)):
        return JobRecords(source, counts)
    ever = set(keys)
    new = [key for key in source.keys if key not in ever]
    vanished = ever.difference(source.keys)
    if extend and source.positional:
        raise JobError(
            f"input {source.name}: its records are told apart by their position alone, so that nothing says which are "
            "new. Score them in a new output directory."
        )
    if not extend and (new or source.positional or source.selected):
        raise JobError(
            f"output {directory} belongs to another job (input: {len(ever)} records there and {len(source.keys)} now; "
            f"{_some(new)} new, {_some(sorted(vanished))} vanished). Score new records in a new output directory, or "
            "among the others with --extend."
        )
    return JobRecords(source.arranged(keys), counts, tuple(sorted(vanished)))


def _read_keys(directory: AnyPath, generation: int, digest: str) -> list[str]:
    keys = read_parquet(directory / records_file(generation))["key"].to_pylist()
    if keys_digest(keys) != digest:
        raise KeyError("these are not the records that manifest.json tells of")
    return keys


def keys_digest(keys: Sequence[str]) -> str:
    """SHA-256 over all keys in order: the same digest means the same records in the same shards."""
    state = hashlib.sha256()
    for key in keys:
        state.update(key.encode())
        state.update(b"\0")
    return state.hexdigest()


def _some(keys: Sequence[str]) -> str:
    return f"{len(keys)}" + (f" (such as {keys[0]!r})" if keys else "")
