"""What a classifier learns of what is kept: a linear probe of embeddings, and a small network of pixels."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jepa_jax.studies.quality import Split, linear_probe

STEPS = 300
BATCH = 64


def probe(embedding: np.ndarray, labels: np.ndarray, kept: np.ndarray, test: Split) -> float:
    """Accuracy of a linear probe of the kept images' embeddings."""
    return linear_probe(Split(embedding[kept], labels[kept]), test)


def network(images: np.ndarray, labels: np.ndarray, kept: np.ndarray, test: Split, seed: int) -> float:
    """Accuracy of a small convolutional network on the kept images; ``test`` has images in place of embeddings."""
    with jax.numpy_dtype_promotion("standard"):
        params = _fit(jnp.asarray(images[kept]), jnp.asarray(labels[kept], jnp.int32), jax.random.key(seed))
        found = [
            np.asarray(_logits(params, _pixels(jnp.asarray(part)))) for part in np.array_split(test.embeddings, 8)
        ]
    return float(np.mean(np.concatenate(found).argmax(axis=1) == test.labels))


def _pixels(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 127.5 - 1


def _start(key: jax.Array) -> dict[str, Any]:
    shapes = {"first": (3, 3, 3, 16), "second": (3, 3, 16, 32), "third": (3, 3, 32, 64)}
    keys = jax.random.split(key, 4)
    params: dict[str, Any] = {
        name: jax.random.normal(k, shape) * np.sqrt(2 / np.prod(shape[:3]))
        for k, (name, shape) in zip(keys, shapes.items(), strict=False)
    }
    return params | {"last": jax.random.normal(keys[3], (64, 10)) * 0.05, "bias": jnp.zeros(10)}


@jax.jit
def _logits(params: dict[str, Any], x: jax.Array) -> jax.Array:
    """Pixels [B, 32, 32, 3] to [B, 10]."""
    for name in ("first", "second", "third"):
        x = jax.lax.conv_general_dilated(x, params[name], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        mean, var = x.mean(axis=(1, 2, 3), keepdims=True), x.var(axis=(1, 2, 3), keepdims=True)
        x = jax.nn.relu((x - mean) / jnp.sqrt(var + 1e-5))
    return x.mean(axis=(1, 2)) @ params["last"] + params["bias"]


def _fit(images: jax.Array, labels: jax.Array, key: jax.Array) -> dict[str, Any]:
    """Step by step: within a loop of XLA's own, a CPU convolves slowly."""
    params = _start(jax.random.fold_in(key, 0))
    state = _optimizer(STEPS).init(params)
    for step in range(STEPS):
        params, state = _step(STEPS, BATCH, params, state, images, labels, jax.random.fold_in(key, 1 + step))
    return params


def _optimizer(steps: int) -> optax.GradientTransformation:
    return optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-3)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(
    steps: int, batch: int, params: dict[str, Any], state: Any, images: jax.Array, labels: jax.Array, key: jax.Array
) -> tuple[Any, Any]:
    def loss(params: dict[str, Any]) -> jax.Array:
        rows_key, flip_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (batch,), 0, len(labels))
        x = _pixels(images[rows])
        x = jnp.where(jax.random.bernoulli(flip_key, 0.5, (batch, 1, 1, 1)), x[:, :, ::-1], x)
        return optax.softmax_cross_entropy_with_integer_labels(_logits(params, x), labels[rows]).mean()

    updates, state = _optimizer(steps).update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state
