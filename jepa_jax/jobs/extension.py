"""An input that has grown: what is new in it is scored, what was scored stays.

A record is new if its key is, or if the picture under its key has another size than the one that was scored (by the
column ``bytes`` of the tables; where a table has none, or an input tells no sizes, by the key alone). New records make
parts of their own, after the finished ones. What is gone from the input keeps its row, and is named in gone.parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jepa_jax.images.sources import Records
from jepa_jax.jobs.output.parts import PartWriter
from jepa_jax.jobs.output.records import JobRecords, keys_digest


def extended(pinned: JobRecords, source: Records, writer: PartWriter) -> JobRecords:
    """The records with a generation more, of what is new; the same where nothing is.

    Args:
        pinned: the records so far.
        source: the input as it is now.
        writer: of the job, as it was before.
    """
    known = set(pinned.source.keys)
    then = _sizes_then(pinned, writer)
    now = dict(zip(source.keys, source.sizes(), strict=True)) if then else {}
    changed = {key for key, size in then.items() if now.get(key) not in (None, size)}
    fresh = [key for key in source.keys if key not in known or key in changed]
    if not fresh:
        return pinned
    return JobRecords(source.arranged([*pinned.source.keys, *fresh]), (*pinned.generations, len(fresh)), pinned.gone)


def described(pinned: JobRecords) -> list[dict[str, Any]]:
    """What the manifest says of the generations after the first."""
    _, *later = pinned.files()
    return [{"records": len(keys), "keys_sha256": keys_digest(keys)} for _, keys in later]


def what_is_new(before: JobRecords, after: JobRecords) -> str:
    """In words: how many records are new, changed and gone."""
    known = set(before.source.keys)
    fresh = after.source.keys[len(before.source.keys) :]
    changed = sum(key in known for key in fresh)
    return (
        f"Extended: {len(fresh) - changed:,} records are new{_such_as(fresh)}, {changed:,} have changed, "
        f"{len(after.gone):,} are gone{_such_as(after.gone)} and keep their rows."
    )


def gone_table(pinned: JobRecords) -> pa.Table:
    """The content of `GONE`."""
    return pa.table({"key": pa.array(pinned.gone, pa.large_string())})


def _sizes_then(pinned: JobRecords, writer: PartWriter) -> dict[str, int]:
    """Bytes of every picture that is in the tables, by key; the last one's of several."""
    found: dict[str, int] = {}
    for shard in sorted(writer.written()):
        for table in writer.read(shard, ["key", "bytes"]):
            if "bytes" in table.column_names:
                sizes = zip(table["key"].to_pylist(), table["bytes"].to_pylist(), strict=True)
                found.update((key, size) for key, size in sizes if size is not None)
    return found


def _such_as(keys: Sequence[str]) -> str:
    return f" (such as {keys[0]!r})" if keys else ""
