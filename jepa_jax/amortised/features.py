"""What one forward pass tells about an image's score: moments over tokens of every block's output, and the embedding.

    features = mean_n t_1, std_n t_1, ..., mean_n t_L, std_n t_L, z        [2 L d + K]

with t_l [N, d] the tokens behind block l and z the embedding; where the embedding hangs on a class token and not on a
mean over tokens, that token behind every block as well. `docs/amortised.md` has the study that chose them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders import Encoder, EncoderFunction
from jepa_jax.encoders.parameters import Params, build_module
from jepa_jax.errors import ArgumentError
from jepa_jax.numerics.batches import cut, filled
from jepa_jax.numerics.platforms import Platform, platform_of

BATCH = {"cpu": 64, "gpu": 256, "tpu": 256}
"""Images in one call of the program. By measurement; of clips as many as have so many frames."""

THREADS = {"cpu": 2, "gpu": 2, "tpu": 2}
"""Calls at the same time."""


def examples_in_call(encoder: Encoder, platform: Platform) -> int:
    """Images, or clips, in one call of the program on a device."""
    return max(1, BATCH[platform] // (encoder.spec.preprocess.frames or 1))


def feature_count(encoder: Encoder) -> int:
    """F, the number of features of an image."""
    vit = encoder.spec.vit
    per_block = 2 if vit.averages_tokens else 3
    return per_block * vit.depth * vit.width + encoder.spec.embedding_size


def features(encoder: Encoder, images: np.ndarray | jax.Array) -> np.ndarray:
    """Features of preprocessed images, with exact float32 products on every backend.

    Args:
        encoder: an `Encoder`. Of a plain function nothing but its embedding is known, which does not tell enough.
        images: float [B, H, W, 3], or clips [B, T, H, W, 3], as `Encoder.preprocess` makes them. An image with a NaN
            has NaNs.

    Returns:
        float32 [B, F].

    Raises:
        ArgumentError: encoder is no `Encoder`, or images are no batch of its images.
    """
    require_encoder(encoder)
    _check_images(encoder, batch := np.asarray(images))
    if not len(batch):
        return np.zeros((0, feature_count(encoder)), np.float32)
    return np.concatenate(list(feature_stream(encoder, [batch])))


def feature_stream(encoder: Encoder, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Features [B, F] of batches [B, H, W, 3] one after the other, each forgotten when the next is asked for."""
    require_encoder(encoder)
    platform = platform_of(None)
    size = examples_in_call(encoder, platform)

    def compute(part: np.ndarray) -> np.ndarray:
        images = jnp.asarray(filled(part, size), jnp.float32)
        return cut(compute_features(encoder.function, encoder.params, images), len(part))

    with ThreadPoolExecutor(THREADS[platform]) as threads:
        for batch in batches:
            _check_images(encoder, batch)
            parts = [batch[start : start + size] for start in range(0, len(batch), size)]
            if parts:
                yield np.concatenate(list(threads.map(compute, parts)))


def compute_features(function: EncoderFunction, params: Params, images: jax.Array) -> np.ndarray:
    """Features [B, F] of one batch, where its images and the parameters are."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(_features(function, params, images))


def require_encoder(encoder: object) -> None:
    """Raise ArgumentError where the stages of a forward pass are not known."""
    if not isinstance(encoder, Encoder):
        raise ArgumentError(
            f"encoder is a {type(encoder).__name__}; amortised scores need an Encoder, whose blocks can be seen."
        )


def _check_images(encoder: Encoder, images: np.ndarray) -> None:
    if images.ndim != 1 + len(encoder.spec.input_shape) or images.dtype.kind != "f":
        raise ArgumentError(
            f"images are {images.dtype} {list(images.shape)}; they must be float [B, {encoder.spec.vit.frame_axes}], "
            "as Encoder.preprocess makes them."
        )


@functools.partial(jax.jit, static_argnums=0)
def _features(function: EncoderFunction, params: Params, images: jax.Array) -> jax.Array:
    """[B, H, W, 3] -> [B, F]; of clips, [B, T, H, W, 3]."""
    stages = build_module(function.vit, params).intermediates(images)
    found = []
    for number in range(function.vit.depth):
        tokens = stages[f"block_{number}"]
        mean = jnp.mean(tokens, axis=1)
        spread = jnp.sqrt(jnp.mean((tokens - mean[:, None]) ** 2, axis=1))
        found += [mean, spread] if function.vit.averages_tokens else [mean, spread, tokens[:, 0]]
    return jnp.concatenate([*found, stages["embedding"]], axis=-1).astype(jnp.float32)
