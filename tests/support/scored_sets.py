"""Small finished jobs for the analysis tests: real files, a real (random) encoder, the real runner."""

import dataclasses
from pathlib import Path

import numpy as np
from makes import TINIEST_VIT
from PIL import Image

from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.jobs import JobOptions, open_source, run_job

VIT = dataclasses.replace(TINIEST_VIT, width=16, mlp_width=32)
SPEC = EncoderSpec("tiny", "dinov2", VIT, PreprocessSpec(resize_shortest=32, crop=28))
COUNT = 60


class Quiet:
    """A progress that shows nothing, whatever it is told."""

    def start(self, *_: object, **__: object) -> None:
        """Nothing to show."""

    def doing(self, what: str) -> None:
        """Nothing to show."""

    def advance(self, *_: object, **__: object) -> None:
        """Nothing to show."""

    def note(self, message: str) -> None:
        pass

    def elsewhere(self, records: int) -> None:
        """No others."""

    def shard_written(self, *_: object, **__: object) -> None:
        """Nothing to show."""


def draw_pictures(folder: Path, roughness: int, seed: int) -> None:
    """`COUNT` pictures of random colours on a grid, in two sub-folders; the finer the grid, the more complex."""
    rng = np.random.default_rng(seed)
    for i in range(COUNT):
        cells = rng.integers(0, 256, (roughness, roughness + i % 3, 3), np.uint8)
        picture = Image.fromarray(cells).resize((72, 64 + i % 9), Image.Resampling.BICUBIC)
        target = folder / ("apples", "pears")[i % 2] / f"{i:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)


def score_drawn_sets(folder: Path) -> dict[str, Path]:
    """Score a smooth and a rough set by one encoder, and the smooth one by another; the rough one has a failure."""
    draw_pictures(folder / "images" / "smooth", 5, seed=0)
    draw_pictures(folder / "images" / "rough", 24, seed=1)
    (folder / "images" / "rough" / "broken.png").write_bytes(b"\x89PNG")
    encoders = {seed: Encoder(SPEC, initialize_params(VIT, seed)) for seed in (0, 1)}
    jobs = {"smooth": ("smooth", 0), "rough": ("rough", 0), "smooth-other": ("smooth", 1)}
    for name, (images, seed) in jobs.items():
        run_job(
            encoders[seed],
            open_source(folder / "images" / images),
            folder / name,
            Quiet(),
            JobOptions(columns=("singular_values", "embedding")),
        )
    return {name: folder / name for name in jobs}
