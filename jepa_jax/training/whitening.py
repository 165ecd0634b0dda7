"""The last touch to a Gaussian encoder: mean zero and covariance I, exactly, over its training images."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders import Encoder


def whitened(encoder: Encoder, images: np.ndarray, batch_size: int = 500) -> Encoder:
    """Fold a whitening of the embeddings into the final projection.

    The embedding stays what it was up to an invertible linear map, so that no probe changes; the score of every
    image changes by one constant.

    Args:
        encoder: one with a projection.
        images: uint8 [N, S, S, 3] of the encoder's input size; N well above K.
        batch_size: images embedded at once.
    """
    embeddings = embed_images(encoder, images, batch_size).astype(np.float64)
    mean, covariance = embeddings.mean(axis=0), np.cov(embeddings.T)
    variances, directions = np.linalg.eigh(covariance)
    symmetric = directions / np.sqrt(variances) @ directions.T  # the whitening that changes embeddings least
    kernel = np.asarray(encoder.params["projection"]["kernel"], np.float64)
    # (p + b) W has mean m: subtracting the shift that W maps onto m from the LayerNorm's bias b removes it.
    shift = np.linalg.lstsq(kernel.T, mean, rcond=None)[0]
    norm = encoder.params["norm"]
    params = encoder.params | {
        "norm": norm | {"bias": norm["bias"] - jnp.asarray(shift, jnp.float32)},
        "projection": {"kernel": jnp.asarray(kernel @ symmetric, jnp.float32)},
    }
    return Encoder(encoder.spec, params)


def embed_images(encoder: Encoder, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """uint8 images of the encoder's input size, [N, S, S, 3], to embeddings [N, K]."""
    return np.concatenate(
        [
            np.asarray(encoder(standardized(encoder, images[i : i + batch_size])))
            for i in range(0, len(images), batch_size)
        ]
    )


def standardized(encoder: Encoder, images: np.ndarray) -> np.ndarray:
    """uint8 images that have the input size already to the encoder's input, as `Encoder.preprocess` would."""
    recipe = encoder.spec.preprocess
    return (images.astype(np.float32) / 255 - np.array(recipe.mean, np.float32)) / np.array(recipe.std, np.float32)
