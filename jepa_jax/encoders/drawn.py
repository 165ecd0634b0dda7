"""Encoders with random weights: for measuring what does not hang on what an encoder has learned."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jepa_jax.encoders.encoder import Encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.encoders.specs import EncoderSpec

GAIN = 2.0
"""Fresh weights are multiplied by this, which brings the spread of the spectrum near that of trained ones."""


def random_encoder(spec: EncoderSpec, seed: int = 0) -> Encoder:
    """An encoder of an architecture, as it is drawn by a seed."""

    def louder(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return leaf if str(path[-1].key).startswith("layer_scale") else GAIN * leaf

    vit = dataclasses.replace(spec.vit, position_resize="bicubic")
    params = jax.tree.map_with_path(louder, initialize_params(vit, seed))
    return Encoder(dataclasses.replace(spec, vit=vit), params)
