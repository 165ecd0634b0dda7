"""Whole jobs: images per second beside the bare engine, what an interruption costs, and compiling, cold and cached."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jepa_jax as jj
from benchmarks import pipeline
from benchmarks.contest import encoder_spec
from benchmarks.places import ROOT
from benchmarks.processes import call
from jepa_jax.encoders import save_encoder
from jepa_jax.encoders.drawn import random_encoder

INTERRUPTED = 143


@dataclass(frozen=True)
class Jobs:
    """Jobs of `benchmarks.pipeline`'s small encoder, or of a known one.

    Attributes:
        records: numbers of pictures; each a job of its own, taking turns with the bare engine. A thousand are done in
            seconds, of which starting and stopping are a part; ten thousand show the rate.
        seconds: of each turn of the bare engine.
        resumed: pictures of the job that is interrupted and resumed, of the small encoder; 0 leaves it out.
        compiled: encoder whose program is compiled, cold and cached; None leaves it out.
        image_size: its side, pixels.
        model: a known encoder for the jobs beside the bare engine.
        workers: that decode for them.
    """

    records: tuple[int, ...] = (1_000, 10_000)
    seconds: float = 1.0
    resumed: int = 1000
    compiled: str | None = "dinov2-small"
    image_size: int = 112
    model: str | None = None
    workers: int = 1

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Measure."""
        result: dict[str, Any] = {"pipeline": []}
        for count in self.records:
            result["pipeline"].append(
                pipeline.measure_in_its_own_process(count, self.workers, self.seconds, self.model)
            )
            record(result)
        if self.resumed:
            result["resume"] = dataclasses.asdict(resume_cost(self.resumed))
            record(result)
        if self.compiled is not None:
            result["compile"] = compile_cost(self.compiled, self.image_size)
        return result


def compile_cost(model: str, image_size: int) -> dict[str, Any]:
    """Seconds of compiling a scoring program in a fresh process, without JAX's persistent cache and with it."""
    arguments = {"model": model, "image_size": image_size}
    with tempfile.TemporaryDirectory() as cache:
        # A program that compiles in less than a second is not kept by default.
        settings = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        cold, cached = (call("benchmarks.jobs:compile_seconds", arguments, environment=settings) for _ in range(2))
    return arguments | {"cold_seconds": cold, "cached_seconds": cached}


def compile_seconds(model: str, image_size: int) -> float:
    """What compiling a scoring program takes in this process."""
    encoder = random_encoder(encoder_spec(model).at_image_size(image_size))
    scorer = jj.Scorer(encoder)
    return scorer.program(jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)).compile_seconds


@dataclass(frozen=True)
class ResumeCost:
    """Seconds of a job in one go, and of the same job interrupted by SIGTERM and resumed; start-up included.

    Attributes:
        records: of the job.
        undisturbed_seconds: in one go.
        interrupted_seconds: of the run that was interrupted.
        resumed_seconds: of the run that finished it.
        finished_seconds: of the same command again, with nothing left to do.
        parts_before: parts that were written when it was interrupted.
        parts: of the job.
        parts_rewritten: finished parts that the second run touched.
    """

    records: int
    undisturbed_seconds: float
    interrupted_seconds: float
    resumed_seconds: float
    finished_seconds: float
    parts_before: int
    parts: int
    parts_rewritten: int


def resume_cost(records: int) -> ResumeCost:
    """Run the command line in processes of its own: in one go, and with an interruption after a third of the parts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        pipeline.make_pictures(folder / "in", records)
        save_encoder(pipeline.small_encoder(), folder / "encoder")
        command = [sys.executable, "-m", "jepa_jax", "score", str(folder / "in"), "--model", str(folder / "encoder")]
        command += ["--batch-size", str(pipeline.BATCH), "--workers", "1", "--output"]
        settings = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}

        def start(output: Path) -> subprocess.Popen:
            return subprocess.Popen([*command, str(output)], cwd=ROOT, env=settings, stdout=subprocess.DEVNULL)

        def seconds(output: Path) -> float:
            begun = time.perf_counter()
            if status := start(output).wait():
                raise RuntimeError(f"{' '.join(command)} {output} ended with status {status}")
            return time.perf_counter() - begun

        start(folder / "first").wait()  # fills the cache of compiled programs
        undisturbed = seconds(folder / "whole")
        total = len(_parts(folder / "whole"))
        for attempt in range(5):
            output, begun = folder / f"halves-{attempt}", time.perf_counter()
            process = start(output)
            while len(_parts(output)) < max(1, total // 3) and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            status = process.wait()
            interrupted = time.perf_counter() - begun
            before = _parts(output)
            if status == INTERRUPTED and len(before) < total:
                break  # otherwise, on a busy machine, the signal came too late
        else:
            raise RuntimeError(f"a job of {records} pictures ends before it can be interrupted (status {status})")
        resumed = seconds(output)
        after = _parts(output)
        rewritten = sum(after[part] != written for part, written in before.items())
        return ResumeCost(
            records, undisturbed, interrupted, resumed, seconds(output), len(before), len(after), rewritten
        )


def _parts(output: Path) -> dict[str, int]:
    """Finished parts, and when each was written."""
    found = (output / "scores").glob("part-*.parquet")
    parts = (path for path in found if re.fullmatch(r"part-\d+\.parquet", path.name))
    return {path.name: path.stat().st_mtime_ns for path in parts}
