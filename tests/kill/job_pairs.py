"""Two jobs that begin in one empty directory: one table, of one of them, and nobody is told otherwise."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contender import Contender
from jobs_shared import table
from PIL import Image

ONE_PROGRAM: tuple[dict[str, Any], ...] = ({}, {"seed": 1}, {"columns": ["embedding"]}, {"shard_size": 3})
"""Jobs no two of which may share a table, though one program computes all of them."""

JOBS = (*ONE_PROGRAM, {"side": 28}, {"precision": "bfloat16"}, {"spectrum": False})
"""The same, of several programs."""

RECORDS = 12


def draw_pictures(folder: Path, records: int = RECORDS, seed: int = 0) -> Path:
    """A folder of small pictures."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(records):
        Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8)).save(folder / f"{i:03d}.png", compress_level=1)
    return folder


class Pairs:
    """Two contenders, and what each job's table is when nothing disturbs it.

    Args:
        folder: an empty one, for pictures and tables.
        seed: of the pairs.
        jobs: to draw from.
    """

    def __init__(self, folder: Path, seed: int = 0, jobs: Sequence[dict[str, Any]] = JOBS):
        self.folder, self._jobs, self._rng = folder, jobs, random.Random(seed)
        self.images = draw_pictures(folder / "images")
        self.contenders = (Contender(), Contender())
        self._expected: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Pairs:
        return self

    def __exit__(self, *_: object) -> None:
        for contender in self.contenders:
            contender.stop()

    def drawn(self, number: int) -> tuple[list[dict[str, Any]], float]:
        """Two jobs, every seventh time the same twice, and by how many seconds the second one is later."""
        jobs = self._rng.sample(self._jobs, 2)
        if number % 7 == 6:
            jobs = [jobs[0], jobs[0]]
        return jobs, self._rng.choice([0.0, 0.0, 0.02, 0.1]) * self._rng.random() + self._rng.choice([0, 0, 0, 0.5])

    def try_pair(self, number: int, jobs: list[dict[str, Any]], later: float) -> str:
        """Begin both; AssertionError if the directory or what they said is wrong. Says who had it."""
        for job in jobs:
            self._undisturbed(job)
        output, start = self.folder / f"pair-{number}", time.monotonic() + 0.2
        for contender, job, at in zip(self.contenders, jobs, (start, start + later), strict=True):
            contender.begin(output, self.images, job, at=at)
        outcomes = [contender.outcome() for contender in self.contenders]
        said = f"pair {number}, {jobs}, {later:.3f} s apart: {outcomes}"
        ended = [i for i in (0, 1) if "error" not in outcomes[i]]
        assert ended == ([0, 1] if jobs[0] == jobs[1] else ended[:1]), said
        assert ended, said
        for refused in (i for i in (0, 1) if i not in ended):
            assert outcomes[refused]["error"] == "JobError", said
            assert "belongs to another job" in outcomes[refused]["message"], said
        self.require_table(output, jobs[ended[0]], said)
        shutil.rmtree(output)
        return f"{later:.3f} s apart, {jobs[0]} and {jobs[1]}: " + ("both" if len(ended) == 2 else f"the {ended[0]}.")

    def require_table(self, output: Path, job: dict[str, Any], said: str = "") -> None:
        """The directory holds this job's table: every record once, with the scores that it has undisturbed."""
        expected = self._undisturbed(job)
        manifest = json.loads((output / "manifest.json").read_text())
        assert manifest["complete"], said
        assert manifest["pinned"] == expected["pinned"], said
        found = table(output)
        assert found["key"].to_pylist() == expected["table"]["key"].to_pylist(), said
        assert found.schema.names == expected["table"].schema.names, said
        np.testing.assert_array_equal(found["score"].to_numpy(), expected["table"]["score"].to_numpy(), said)
        assert not list(output.rglob("*.tmp")), said

    def _undisturbed(self, job: dict[str, Any]) -> dict[str, Any]:
        name = json.dumps(job)
        if name not in self._expected:
            output = self.folder / f"undisturbed-{len(self._expected)}"
            for contender in self.contenders:  # the second one only compiles what it needs
                contender.begin(output, self.images, job)
                assert contender.outcome() == {"records": RECORDS}
                shutil.rmtree(output) if contender is self.contenders[0] else None
            pinned = json.loads((output / "manifest.json").read_text())["pinned"]
            self._expected[name] = {"pinned": pinned, "table": table(output)}
        return self._expected[name]
