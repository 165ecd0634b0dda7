"""What the tests of scoring jobs share: a tiny encoder, a quiet progress, a way to read the table."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from makes import TINY

from jepa_jax.encoders import Encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.jobs import ShardReport


class Silent:
    """A progress that remembers which parts were written."""

    def __init__(self):
        self.reports: list[ShardReport] = []

    def start(self, total: int, done: int) -> None:
        """Nothing to show."""

    def doing(self, what: str) -> None:
        """Nothing to show."""

    def advance(self, scored: int, failed: int, device_busy: float) -> None:
        """Nothing to show."""

    def elsewhere(self, records: int) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        pass

    def shard_written(self, report: ShardReport) -> None:
        """Remember it."""
        self.reports.append(report)


@functools.cache
def tiny_encoder() -> Encoder:
    """Random weights; a step compiles in a second."""
    return Encoder(TINY, initialize_params(TINY.vit, seed=0))


def table(output: Path) -> pa.Table:
    """The score table as one, as the README reads it."""
    files = sorted(str(path) for path in (output / "scores").glob("part-*.parquet"))
    return ds.dataset(files).to_table()


def failures(output: Path) -> dict[str, str]:
    """Key to reason of every failure."""
    return {row["key"]: row["reason"] for row in pq.read_table(output / "failures.parquet").to_pylist()}


def score_command(*arguments: str | Path) -> list[str]:
    """`jepa-jax score` in a process of its own."""
    return [sys.executable, "-m", "jepa_jax", "score", *map(str, arguments)]


def run_score(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `jepa-jax score` to its end; wide enough that no message is wrapped."""
    settings = os.environ | {"COLUMNS": "200"} | environment
    return subprocess.run(score_command(*arguments), capture_output=True, text=True, env=settings, check=False)
