"""What a scoring job costs beside its engine: ``python -m benchmarks.pipeline``.

A small encoder scores 1,000 and then 10,000 pictures, each count in a process of its own. The job takes turns with
the bare engine, which runs on one batch over and over, so that a busy machine is unfair to both alike. The rates
(without compilation) and the peaks of resident memory are printed and written, with versions
and commit, to ``benchmarks/results/pipeline.json``. Bars: the job at 90% of the bare engine's rate or more; its
resident memory at 10,000 pictures within 10% of that at 1,000.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
from PIL import Image

from benchmarks.memory import resident_bytes
from benchmarks.places import RESULTS
from benchmarks.processes import call
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec, ViTSpec, find_spec
from jepa_jax.encoders.drawn import random_encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.jobs import JobOptions, ShardReport, open_source, run_job
from jepa_jax.jobs.progress.console import Quiet
from jepa_jax.jobs.rows.exact import ExactStep
from jepa_jax.provenance import describe
from jepa_jax.scoring.batches import default_batch_size
from jepa_jax.scoring.options import ScoreOptions

BATCH = 16
SPEC = EncoderSpec(
    name="small",
    family="dinov2",
    vit=ViTSpec(width=48, depth=2, heads=4, patch_size=14, native_image_size=56, mlp_width=192, layer_scale=True),
    preprocess=PreprocessSpec(resize_shortest=64, crop=56),
)


class Alternating(Quiet):
    """A progress that interrupts the job after every so many records, and lets the bare engine run instead."""

    def __init__(self, step: ExactStep, images: np.ndarray, every: int, seconds: float):
        self.step, self.images, self.every, self.seconds = step, images, every, seconds
        self.job_records, self.job_seconds = 0, 0.0
        self.engine_rates: list[float] = []
        self._since: float | None = None
        self._at = 0

    def shard_written(self, report: ShardReport) -> None:
        """Take turns; the job's first slice, which compiles, does not count."""
        if self._since is not None and report.records_done - self._at < self.every:
            return
        if self._since is not None:
            # What was under way when the engine had its turn was computed then.
            under_way = self.step.batches_at_once() * self.step.batch_size
            self.job_records += report.records_done - self._at - under_way
            self.job_seconds += time.monotonic() - self._since
        self.engine_rates.append(engine_rate(self.step, self.images, self.seconds))
        self._since, self._at = time.monotonic(), report.records_done


def make_pictures(folder: Path, count: int, size: tuple[int, int] = (80, 64)) -> None:
    """Smooth random JPEGs."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:05d}.jpg")


def engine_rate(step: ExactStep, images: np.ndarray, seconds: float) -> float:
    """Images per second of the step alone on one batch, of which one is always queued behind the running one."""
    running = step(images)
    jax.block_until_ready(running)
    begun, batches = time.monotonic(), 0
    running = step(images)
    while batches == 0 or time.monotonic() - begun < seconds:
        queued = step(images)
        jax.block_until_ready(running)
        running, batches = queued, batches + 1
    return batches * step.batch_size / (time.monotonic() - begun)


def measure(records: int, workers: int, seconds: float, model: str | None = None) -> dict[str, Any]:
    """One job, taking turns with the bare engine, in this process.

    Args:
        records: pictures; of 80 x 64 pixels for the small encoder, of 640 x 480 for a known one.
        workers: that decode.
        seconds: of each turn of the bare engine.
        model: a known encoder, with random weights and scores alone; by default the small one.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        folder.mkdir()
        make_pictures(folder, records, (640, 480) if model else (80, 64))
        return _measure(folder, Path(name) / "out", workers, seconds, model)


def _measure(folder: Path, output: Path, workers: int, seconds: float, model: str | None) -> dict[str, Any]:
    encoder = random_encoder(find_spec(model)) if model else small_encoder()
    score = ScoreOptions(spectrum=model is None)
    batch = default_batch_size(encoder.spec) if model else BATCH
    step, source = ExactStep(encoder, JobOptions(score), batch), open_source(folder)
    # A turn's last batch counts as the engine's: turns of few batches would be all edge.
    every = max(4 * step.batch_size, len(source.keys) // 12)
    options = JobOptions(score, batch_size=step.batch_size, workers=workers, shard_size=every // 2 if model else None)
    paths = sorted(folder.iterdir())[: step.batch_size]
    images = encoder.preprocess([Image.open(path) for path in paths])
    turns = Alternating(step, np.resize(images, (step.batch_size, *step.image_shape)), every, seconds)
    run_job(encoder, source, output, turns, options)
    job, engine = turns.job_records / turns.job_seconds, sum(turns.engine_rates) / len(turns.engine_rates)
    return {
        "encoder": model or SPEC.name,
        "records": len(source.keys),
        "engine_images_per_second": engine,
        "engine_slowest_and_fastest_turn": [min(turns.engine_rates), max(turns.engine_rates)],
        "job_images_per_second": job,
        "job_share_of_engine": job / engine,
        "resident_peak_mb": resident_peak() / 1e6,
    }


def resident_peak() -> int:
    """Peak of this process's resident memory so far, bytes."""
    return resident_bytes("VmHWM") if sys.platform == "linux" else psutil.Process().memory_info().rss


def small_encoder() -> Encoder:
    """What all jobs here score with."""
    return Encoder(SPEC, initialize_params(SPEC.vit, seed=0))


def measure_in_its_own_process(records: int, workers: int, seconds: float, model: str | None = None) -> dict[str, Any]:
    """One job over so many pictures, taking turns with the bare engine; see `measure`."""
    arguments = {"records": records, "workers": workers, "seconds": seconds, "model": model}
    return call("benchmarks.pipeline:measure", arguments)


def main() -> None:
    """Measure every count in a fresh process, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3, help="of each turn of the bare engine")
    arguments = parser.parse_args()
    rows = []
    for records in arguments.records:
        rows.append(measure_in_its_own_process(records, arguments.workers, arguments.seconds))
        print(json.dumps(rows[-1]))
    facts = describe() | {"encoder": SPEC.to_dict()["vit"], "batch_size": BATCH, "workers": arguments.workers}
    growth = rows[-1]["resident_peak_mb"] / rows[0]["resident_peak_mb"]
    result = {"environment": facts, "jobs": rows, "memory_growth": growth}
    (RESULTS / "pipeline.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"job at {rows[-1]['job_share_of_engine']:.1%} of the bare engine; memory x {growth:.3f}")


if __name__ == "__main__":
    main()
