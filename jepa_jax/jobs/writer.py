"""Tables on disk: one Parquet part per shard, each renamed into place when it is whole.

DIR/part-00003-of-00012.parquet            the scores of shard 3
DIR/_failures/part-00003-of-00012.parquet  its failures; written before, so a part means both are there
DIR/failures.parquet                       all failures, once every shard is done
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

FAILURE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False, metadata={"doc": "record key"}),
        pa.field("reason", pa.string(), nullable=False, metadata={"doc": "why it has no score"}),
    ]
)
FAILURES = "failures.parquet"


def score_schema(embedding_size: int, gaussian: bool, columns: Sequence[str]) -> pa.Schema:
    """Columns of the score table, each documented in its metadata."""
    vector = pa.list_(pa.float32(), embedding_size)
    optional = {
        "singular_values": pa.field(
            "singular_values", vector, metadata={"doc": "all singular values of the Jacobian, descending"}
        ),
        "embedding": pa.field("embedding", vector, metadata={"doc": "the encoder's output"}),
    }
    fields = [
        pa.field("key", pa.string(), nullable=False, metadata={"doc": "record key: path below the input"}),
        pa.field(
            "score",
            pa.float64(),
            metadata={"doc": "sum of log singular values over the structural rank, nats; higher = denser"},
        ),
        pa.field(
            "listing_score",
            pa.float64(),
            metadata={"doc": "the paper's listing: all singular values clipped at 1e-6, nats"},
        ),
    ]
    if gaussian:
        fields.append(
            pa.field("gaussian_score", pa.float64(), metadata={"doc": "score + log N(embedding; 0, I), nats"})
        )
    fields.append(
        pa.field("log_volume_rank", pa.int32(), metadata={"doc": "number of singular values that score sums"})
    )
    return pa.schema([*fields, *(optional[name] for name in columns)])


class PartWriter:
    """Writes and finds the parts of one job.

    Args:
        directory: the job's output directory.
        shards: how many parts the whole table has.
        schema: columns of the score table.
    """

    def __init__(self, directory: epath.Path, shards: int, schema: pa.Schema):
        self.directory = directory
        self.shards = shards
        self.schema = schema
        (directory / "_failures").mkdir(parents=True, exist_ok=True)

    def name(self, shard: int) -> str:
        """File name of a shard's part."""
        return f"part-{shard:05d}-of-{self.shards:05d}.parquet"

    def missing(self) -> list[int]:
        """Shards without a part, in order."""
        present = {path.name for path in self.directory.iterdir()}
        return [shard for shard in range(self.shards) if self.name(shard) not in present]

    def write(self, shard: int, rows: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, str]]) -> None:
        """Write one shard, failures first: the part itself is what says that the shard is done."""
        self._write(self.directory / "_failures" / self.name(shard), failures, FAILURE_SCHEMA)
        self._write(self.directory / self.name(shard), rows, self.schema)

    def merge_failures(self) -> int:
        """Write ``failures.parquet`` from all shards; returns how many failures there are."""
        tables = [read_table(self.directory / "_failures" / self.name(shard)) for shard in range(self.shards)]
        merged = pa.concat_tables(tables)
        write_bytes_atomically(self.directory / FAILURES, _parquet_bytes(merged))
        return merged.num_rows

    @staticmethod
    def _write(path: epath.Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
        write_bytes_atomically(path, _parquet_bytes(pa.Table.from_pylist(list(rows), schema=schema)))


def read_table(path: epath.Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file, wherever it lies."""
    return pq.read_table(io.BytesIO(path.read_bytes()), columns=list(columns) if columns else None)


def write_bytes_atomically(path: epath.Path, data: bytes) -> None:
    """Write under a temporary name beside the target, then rename: a reader never sees half a file."""
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_bytes(data)
    temporary.replace(path)


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
