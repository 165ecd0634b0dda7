"""Jobs that are killed, at random moments and at every change of their directory: nothing is lost, nothing doubled."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from contender import Contender
from job_pairs import draw_pictures
from jobs_shared import run_score, score_command, table

RECORDS, SHARD = 2000, 16
SMALL: dict[str, Any] = {"shard_size": 6}
AMORTISED: dict[str, Any] = {"shard_size": 40, "batch_size": 8, "amortise": {"exact_sample": 80, "escalate": 0.1}}
"""A job of several stages, which takes 81 pictures at least."""


def require_equal(found: pa.Table, expected: pa.Table) -> None:
    """Each key once, in order, and the same scores: the same programs ran, or halves of their batches."""
    assert found["key"].to_pylist() == expected["key"].to_pylist()
    np.testing.assert_allclose(found["score"].to_numpy(), expected["score"].to_numpy(), rtol=0, atol=1e-5)
    if "method" in expected.column_names:
        assert found["method"].to_pylist() == expected["method"].to_pylist()


def kill_at_random(
    folder: Path,
    checkpoint: Path,
    environment: dict[str, str],
    *,
    times: int,
    seed: int,
    records: int = RECORDS,
    options: tuple[str, ...] = (),
) -> int:
    """Kill a job so often, its launcher, one process or all of several, and let it end; how often it was killed.

    A job that ends too soon, since each run gets on, is begun again in another directory.
    """
    pictures = draw_pictures(folder / "in", records)
    common = [pictures, "--model", checkpoint, "--shard-size", str(SHARD), "--batch-size", "16", "--workers", "0"]
    common += options
    undisturbed = run_score(*common, "--output", folder / "undisturbed", **environment)
    assert undisturbed.returncode == 0, undisturbed.stderr
    expected = table(folder / "undisturbed")
    assert len(expected) == records
    parts = _parts_in(folder / "undisturbed")
    rng, kills, jobs = random.Random(seed), 0, 0
    while kills < times:
        output = folder / f"out-{jobs}"
        jobs += 1
        kills += _kill_one_job(common, output, environment, times - kills, rng, parts)
        last = run_score(*common, "--output", output, "--processes", "2", **environment)
        assert last.returncode == 0, last.stderr
        require_equal(table(output), expected)
        assert not list(output.rglob("*.tmp"))
    return kills


def _parts_in(output: Path) -> int:
    """Parts of all stages of a job."""
    return len(list(output.glob("**/scores/part-*.parquet")))


def _kill_one_job(
    common: list[Any], output: Path, environment: dict[str, str], most: int, rng: random.Random, parts: int
) -> int:
    kills = seen = 0
    for attempt in range(60):
        command = score_command(*common, "--output", output, "--processes", str((1, 2, 3, 1)[attempt % 4]))
        silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=os.environ | environment, start_new_session=True, **silent)
        # From before the first part of this run to a few parts on: later kills find less work left.
        target = min(parts, seen + rng.randrange(0, 6))
        while process.poll() is None and _parts_in(output) < target:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.2)
        if process.poll() is None:
            _kill_some(process, rng)
            kills += 1
        process.wait()
        seen = _parts_in(output)
        if kills >= most or seen == parts:
            break
    return kills


def _kill_some(process: subprocess.Popen, rng: random.Random) -> None:
    """kill -9 one process of a job, the launcher or all of them; all are gone when this returns."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    victims = rng.choice([family, [rng.choice(family)], [rng.choice(family)]])
    for victim in victims:
        if victim.is_running():
            victim.kill()
    psutil.wait_procs(family, timeout=200)
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in family)


class ScriptedKills:
    """A small job that dies at a given change of its directory, and what it is when nothing disturbs it.

    Args:
        folder: an empty one, for pictures and tables.
        job: as `contender.encoder_and_options` takes it.
        records: pictures, besides a broken one.
        environment: of the processes.
    """

    def __init__(
        self,
        folder: Path,
        job: dict[str, Any] = SMALL,
        records: int = 12,
        environment: Mapping[str, str] = MappingProxyType({}),
    ):
        self._folder, self._environment = folder, environment
        self._job, self._records = job, records
        self._images = draw_pictures(folder / "in", records)
        (self._images / "broken.png").write_bytes(b"no picture")
        self._survivor = Contender(**environment)
        self._finish(folder / "undisturbed")
        self._expected = table(folder / "undisturbed")

    def __enter__(self) -> ScriptedKills:
        return self

    def __exit__(self, *_: object) -> None:
        self._survivor.stop()

    def kill_at(self, number: int) -> bool:
        """Kill a job at its n-th change, and let another process finish it; False if it made no more than n - 1."""
        output = self._folder / f"killed-{number}"
        doomed = Contender(**self._environment)
        doomed.begin(output, self._images, self._job, die_at=number)
        outcome = doomed.outcome()
        doomed.stop()
        self._finish(output)
        require_equal(table(output), self._expected)
        return outcome["error"] == "killed" if "error" in outcome else False

    def _finish(self, output: Path) -> None:
        self._survivor.begin(output, self._images, self._job)
        outcome = self._survivor.outcome()
        assert outcome == {"records": self._records + 1}, outcome
        assert not list(output.rglob("*.tmp"))
