"""The state of a run: everything that the next step depends on, and nothing else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jepa_jax.encoders import EncoderSpec
from jepa_jax.training.config import TrainingConfig
from jepa_jax.training.mimetic import mimetic
from jepa_jax.training.models import Model

State = dict[str, Any]
"""``params`` (``encoder``, ``head``), ``target`` (a moving average of the encoder, or empty), ``optimizer``,
``step`` (int32: also the position in the data), ``key`` (raw key data; step i draws from fold_in(key, i))."""


def model_of(config: TrainingConfig) -> Model:
    """The model that a config trains."""
    return Model(config.encoder, config.bfloat16_products)


def initial_state(config: TrainingConfig) -> State:
    """The state before the first step."""
    model = model_of(config)
    root = jax.random.key(config.seed)
    encoder = model.init(config.seed)
    if config.start == "mimetic":
        assert isinstance(config.encoder, EncoderSpec)
        encoder = mimetic(config.encoder.vit, encoder, config.seed)
    params = {"encoder": encoder, "head": config.objective.init(model, jax.random.fold_in(root, 2**31 - 1))}
    return {
        "params": params,
        "target": jax.tree.map(jnp.copy, encoder) if config.objective.target_decay is not None else {},
        "optimizer": config.optimizer.build(config.steps).init(params),
        "step": jnp.zeros((), jnp.int32),
        "key": jax.random.key_data(root),
    }
