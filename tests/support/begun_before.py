"""A checkpoint, a half-done job and a training run, begun by one version of the package and ended by another.

python tests/support/begun_before.py begin|end PLACE
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
from jobs_shared import Silent, tiny_encoder
from PIL import Image

import jepa_jax as jj
from jepa_jax.encoders import save_encoder
from jepa_jax.jobs import JobOptions, ShardReport, open_source, run_job
from jepa_jax.paths import to_path
from jepa_jax.training.config import TrainingConfig
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.mlp import MLP
from jepa_jax.training.objectives import LeJEPA
from jepa_jax.training.run_files import pin_run
from jepa_jax.training.views import VectorViews

OPTIONS = JobOptions(shard_size=2, batch_size=4, views=2)
RECORDS = 5
TRAINING = TrainingConfig(
    "vectors", MLP(2, (16,), 4), JointEmbedding(VectorViews(2, 0.1), LeJEPA()), steps=1, batch_size=32
)
VECTORS = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)


class Killed(BaseException):
    """What no code catches."""


class KilledAfterAPart(Silent):
    """A progress that ends the job when a part is written."""

    def shard_written(self, report: ShardReport) -> None:
        """No more."""
        raise Killed


def begin(place: Path) -> None:
    """Save the tiny encoder, score until a part is written, and pin a training run."""
    (place / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (RECORDS, 60, 70, 3), np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(place / "pictures" / f"{i}.png")
    save_encoder(tiny_encoder(), place / "tiny")
    with contextlib.suppress(Killed):
        run_job(tiny_encoder(), open_source(place / "pictures"), place / "out", KilledAfterAPart(), OPTIONS)
    (place / "run").mkdir()
    pin_run(TRAINING, VECTORS, to_path(place / "run"))


def end(place: Path) -> None:
    """Load the encoder and jepa-tiny, whose digests are checked, and go on with both; save the encoder anew."""
    jj.load_encoder("jepa-tiny")
    encoder = jj.load_encoder(place / "tiny")
    summary = run_job(encoder, open_source(place / "pictures"), place / "out", Silent(), OPTIONS)
    assert (summary.records, summary.resumed, summary.failed) == (RECORDS, 2, 0), summary
    pin_run(TRAINING, VECTORS, to_path(place / "run"))
    save_encoder(encoder, place / "saved again")


if __name__ == "__main__":
    {"begin": begin, "end": end}[sys.argv[1]](Path(sys.argv[2]))
