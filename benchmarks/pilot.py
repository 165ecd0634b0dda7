"""What `--dry-run` foretells, beside what the job then takes: ``python -m benchmarks.pilot [NAME ...]``.

Three jobs, each in a process of its own: jepa-tiny on small pictures, a ViT-S at 112 pixels with random weights, and
one whose single worker cannot keep up with jepa-tiny (large JPEGs). First the pilot, then the whole job, which finds
its program compiled or compiles it anew. Results go to ``benchmarks/results/pilot-DATE/pilot.json``. Bar: 20%.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import jepa_jax as jj
from benchmarks.places import dated
from benchmarks.processes import call
from jepa_jax.costs.dry_run import dry_run
from jepa_jax.encoders import Encoder, find_spec
from jepa_jax.encoders.drawn import random_encoder
from jepa_jax.images.natural import natural_pictures
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.progress.console import Quiet
from jepa_jax.provenance import describe
from jepa_jax.scoring.options import ScoreOptions

DIFFERENT = 24
"""Pictures that are drawn; further files repeat them."""


@dataclass(frozen=True)
class Job:
    """A job to foretell.

    Attributes:
        model: a known encoder; random weights but for jepa-tiny.
        image_size: its side, pixels; None is its own.
        pictures: how many.
        side: of the pictures, pixels.
        workers: that decode.
    """

    model: str
    image_size: int | None
    pictures: int
    side: int
    workers: int


JOBS = {
    "jepa-tiny": Job("jepa-tiny", None, 400, 64, 2),
    "vit-s-112": Job("dinov2-small", 112, 12, 256, 1),
    "decoding": Job("jepa-tiny", None, 150, 5000, 1),
}


class Timed(Quiet):
    """Remembers when the first batch was begun, and when records were done."""

    def __init__(self):
        self.begun = self.ended = 0.0

    def doing(self, what: str) -> None:
        """The last thing that is said is of the first batch."""
        self.begun = time.monotonic()

    def advance(self, scored: int, failed: int, device_busy: float) -> None:
        """Note the time."""
        self.ended = time.monotonic()


def encoder_of(job: Job) -> Encoder:
    """The encoder of a job."""
    if job.model == "jepa-tiny":
        return jj.load_encoder(job.model)
    spec = find_spec(job.model)
    return random_encoder(spec if job.image_size is None else spec.at_image_size(job.image_size))


def make_pictures(folder: Path, count: int, side: int) -> None:
    """JPEGs with the spectrum of photographs."""
    pictures = [Image.fromarray(pixels) for pixels in natural_pictures(min(count, DIFFERENT), min(side, 512))]
    for number, picture in enumerate(pictures):
        picture.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=92)
    for number in range(len(pictures), count):
        content = (folder / f"{number % len(pictures):05d}.jpg").read_bytes()
        (folder / f"{number:05d}.jpg").write_bytes(content)


def measure(name: str) -> dict[str, Any]:
    """Foretell a job and do it, in this process."""
    job = JOBS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        folder.mkdir()
        make_pictures(folder, job.pictures, job.side)
        options = JobOptions(ScoreOptions(spectrum=job.model == "jepa-tiny"), workers=job.workers)
        encoder, source, timed = encoder_of(job), open_source(folder), Timed()
        begun = time.monotonic()
        plan = dry_run(encoder, source, Path(place) / "out", options)
        pilot_took = time.monotonic() - begun - plan.compile_seconds
        print(name, plan.pilot, f"{plan.seconds:.1f} s predicted", flush=True)
        begun = time.monotonic()
        run_job(encoder, source, Path(place) / "out", timed, options)
        whole = time.monotonic() - begun
    scoring = timed.ended - timed.begun
    assert plan.pilot is not None
    return {
        "job": name,
        **asdict(job),
        "pilot": asdict(plan.pilot) | {"bottleneck": plan.pilot.bottleneck},
        "pilot_seconds": pilot_took,
        "predicted_seconds": plan.seconds,
        "measured_seconds": scoring,
        "error": plan.seconds / scoring - 1,
        "predicted_whole_seconds": plan.seconds + plan.compile_seconds,
        "measured_whole_seconds": whole,
        "error_of_whole": (plan.seconds + plan.compile_seconds) / whole - 1,
    }


def main() -> None:
    """Measure the named jobs, or all, and write the results of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=[], choices=[*JOBS, []])
    place = dated("pilot") / "pilot.json"
    for name in parser.parse_args().names or JOBS:
        rows = json.loads(place.read_text()) if place.exists() else []
        row = {"environment": describe()} | call("benchmarks.pilot:measure", {"name": name})
        place.write_text(json.dumps([old for old in rows if old["job"] != name] + [row], indent=2) + "\n")
        print(f"{name}: {row['predicted_seconds']:.1f} s predicted, {row['measured_seconds']:.1f} s measured")


if __name__ == "__main__":
    main()
