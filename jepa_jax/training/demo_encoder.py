"""A very small encoder, trained while one waits. It makes the demo real; it is no density model of photographs."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jepa_jax.encoders import Encoder, EncoderFunction, EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.encoders.encoder import Params, initialize_params
from jepa_jax.training.objectives import invariance, sigreg
from jepa_jax.training.shapes import draw_shapes, two_views

IMAGE_SIZE = 32
BATCH = 128

SPEC = EncoderSpec(
    name="demo",
    family="vit",
    vit=ViTSpec(
        width=96,
        depth=4,
        heads=4,
        patch_size=8,
        native_image_size=IMAGE_SIZE,
        mlp_width=384,
        pooling="mean_patches",
        class_token=False,
    ),
    preprocess=PreprocessSpec(resize_shortest=36, crop=IMAGE_SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    licence="Apache-2.0",
)


def train_demo_encoder(seconds: float, report: Callable[[int, float, float], None], seed: int = 0) -> Encoder:
    """Train on drawn shapes: two views of a picture meet, all embeddings together look like N(0, I).

    Args:
        seconds: how long to train, after compiling.
        report: called with (step, invariance, sigreg) now and then.
        seed: of the pictures and the start; the time limit still makes each run its own.
    """
    rng = np.random.default_rng(seed)
    optimizer = optax.adamw(1e-3, weight_decay=0.01)
    params = initialize_params(SPEC.vit, seed)
    state = optimizer.init(params)
    function = EncoderFunction(SPEC.vit)
    mean, std = jnp.asarray(SPEC.preprocess.mean), jnp.asarray(SPEC.preprocess.std)

    def loss(params: Params, views: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        flat = (views.reshape(-1, *views.shape[2:]) - mean) / std
        embeddings = function(params, flat).reshape(2, BATCH, -1)
        apart = invariance(embeddings)
        spread = 0.5 * (sigreg(embeddings[0], key) + sigreg(embeddings[1], key))
        return apart + 20.0 * spread, (apart, spread)

    @jax.jit
    def step(params: Params, state: optax.OptState, views: jax.Array, key: jax.Array):
        gradient, terms = jax.grad(loss, has_aux=True)(params, views, key)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, terms

    keys = jax.random.split(jax.random.key(seed), 2**16)
    deadline = None
    for number, key in enumerate(keys):
        views = two_views(rng, draw_shapes(rng, BATCH, IMAGE_SIZE))
        params, state, (apart, spread) = step(params, state, jnp.asarray(views), key)
        apart, spread = float(apart), float(spread)
        now = time.monotonic()
        deadline = deadline or now + seconds  # the first step compiles
        if number % 20 == 0:
            report(number, apart, spread)
        if now >= deadline:
            break
    return Encoder(SPEC, jax.device_get(params))
