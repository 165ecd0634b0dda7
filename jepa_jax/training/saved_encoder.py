"""The encoder that a run leaves: whole or absent, and always of the run's last step."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import numpy as np

from jepa_jax.encoders import Encoder, EncoderSpec, save_encoder
from jepa_jax.encoders.checkpoint import read_description
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.paths import AnyPath
from jepa_jax.training.config import TrainingConfig
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.loop import weights_of
from jepa_jax.training.state import State
from jepa_jax.training.whitening import whitened

FORMAT = "trained by jepa-jax train"
"""What the origin of such an encoder says."""


def write_encoder(config: TrainingConfig, state: State, examples: np.ndarray, directory: AnyPath) -> None:
    """Save the encoder, calibrated where it saw whitened embeddings; one of an earlier step is replaced.

    It is written beside the directory and renamed into place. A kill leaves the earlier one or the new one, or between
    two renames none; the next call mends that.

    Args:
        config: of the run.
        state: after its last step.
        examples: what it was trained on.
        directory: where the encoder goes.

    Raises:
        ArgumentError: something else lies there.
    """
    assert isinstance(config.encoder, EncoderSpec)
    unfinished, earlier = (directory.parent / f"{directory.name}.{name}" for name in ("unfinished", "earlier"))
    for leftover in (unfinished, earlier):
        if leftover.exists():
            shutil.rmtree(leftover)
    step, origin = int(state["step"]), _origin(directory)
    if origin.get("step") == step:
        return
    if directory.exists() and origin.get("format") != FORMAT and any(directory.iterdir()):
        raise ArgumentError(f"output: {directory} is no encoder of this run; move it, and give the same command.")

    spec = dataclasses.replace(config.encoder, name=config.name, gaussian_embedding=config.objective.gaussian)
    encoder = Encoder(spec, weights_of(state))
    if isinstance(config.objective, JointEmbedding) and config.objective.whitened:
        encoder = whitened(encoder, examples)
    save_encoder(encoder, unfinished, {"format": FORMAT, "step": step, "config": config.to_dict()})
    if directory.exists():
        directory.rename(earlier)
    unfinished.rename(directory)
    if earlier.exists():
        shutil.rmtree(earlier)


def _origin(directory: AnyPath) -> dict[str, Any]:
    """What a saved encoder says of its origin; nothing where there is none."""
    try:
        return read_description(directory).get("origin", {})
    except CheckpointError:
        return {}
