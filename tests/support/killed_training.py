"""Small runs of the shipped recipe's kind and of I-JEPA; as a program, one that kills itself without warning.

python tests/support/killed_training.py RUN OUTPUT STEP
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys

import numpy as np

from jepa_jax.encoders import EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.paths import AnyPath, to_path
from jepa_jax.training.config import Optimizer, TrainingConfig, load_config
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.loop import train
from jepa_jax.training.masked_prediction import MaskedPrediction
from jepa_jax.training.objectives import LeJEPA
from jepa_jax.training.views import Crops, ImageViews

EXAMPLES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)

ENCODER = EncoderSpec(
    name="toy",
    family="vit",
    vit=ViTSpec(
        width=16,
        depth=1,
        heads=2,
        patch_size=4,
        native_image_size=16,
        mlp_width=32,
        class_token=False,
        pooling="mean_patches",
    ),
    preprocess=PreprocessSpec(resize_shortest=16, crop=16),
)

SHIPPED = load_config("jepa-tiny")
"""Muon, products in bfloat16, whitened embeddings, a mimetic start: all of it stays, only sizes shrink."""

RUNS: dict[str, TrainingConfig] = {
    "shipped": dataclasses.replace(
        SHIPPED,
        encoder=dataclasses.replace(ENCODER, vit=dataclasses.replace(ENCODER.vit, projection=4)),
        objective=JointEmbedding(ImageViews((Crops(4, 8, (0.15, 0.7)),)), LeJEPA(directions=8), whitened=True),
        optimizer=dataclasses.replace(SHIPPED.optimizer, warmup_steps=3, decay_steps=4),
        steps=14,
        batch_size=16,
        log_every=1,
        checkpoint_every=3,
    ),
    "ijepa": TrainingConfig(
        name="toy",
        encoder=ENCODER,
        objective=MaskedPrediction(
            blocks=2, block_shape=(2, 1), predictor_width=8, predictor_depth=1, target_decay=0.9
        ),
        optimizer=Optimizer(warmup_steps=3, decay_steps=4),
        steps=14,
        batch_size=16,
        log_every=1,
        checkpoint_every=3,
    ),
}


def train_until_killed(name: str, output: AnyPath, step: int) -> None:
    """A run that SIGKILL ends after a step: past the log's line, before a checkpoint."""

    def report(done: int, _: dict[str, float]) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    train(RUNS[name], EXAMPLES, output, report)


if __name__ == "__main__":
    train_until_killed(sys.argv[1], to_path(sys.argv[2]), int(sys.argv[3]))
