"""The state of a run: everything that the next step depends on, and nothing else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders import EncoderSpec
from jepa_jax.encoders.encoder import Params
from jepa_jax.training.config import TrainingConfig
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.models import Model, pixels
from jepa_jax.training.start import mimetic, whiten_projection

State = dict[str, Any]
"""``params`` (``encoder``, ``head``), ``target`` (a moving average of the encoder, or empty), ``optimizer``,
``step`` (int32: also the position in the data), ``key`` (raw key data; step i draws from fold_in(key, i))."""


def model_of(config: TrainingConfig) -> Model:
    """The model that a config trains."""
    return Model(config.encoder, config.bfloat16_products)


def initial_state(config: TrainingConfig, examples: np.ndarray) -> State:
    """The state before the first step; the examples are looked at if ``config.start`` says so."""
    model = model_of(config)
    root = jax.random.key(config.seed)
    encoder = begin(config, model.init(config.seed), examples)
    params = {"encoder": encoder, "head": config.objective.init(model, jax.random.fold_in(root, 2**31 - 1))}
    return {
        "params": params,
        "target": jax.tree.map(jnp.copy, encoder) if config.objective.target_decay is not None else {},
        "optimizer": config.optimizer.build(config.steps).init(params),
        "step": jnp.zeros((), jnp.int32),
        "key": jax.random.key_data(root),
    }


def begin(config: TrainingConfig, params: Params, examples: np.ndarray) -> Params:
    """What ``config.start`` does to an encoder's random parameters."""
    if "mimetic" in config.start:
        assert isinstance(config.encoder, EncoderSpec)
        params = mimetic(config.encoder.vit, params, config.seed)
    if "whitened" in config.start:
        assert isinstance(config.objective, JointEmbedding)
        views = config.objective.views(pixels(jnp.asarray(examples[:256])), jax.random.key(config.seed))[0]
        params = whiten_projection(model_of(config), params, views.reshape(-1, *views.shape[2:]))
    return params
