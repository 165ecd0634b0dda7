"""One interface for what is trained: parameters, and a module or a function around them."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jepa_jax.encoders import EncoderSpec
from jepa_jax.encoders.parameters import Params, build_module, initialize_params
from jepa_jax.encoders.vit import ViT
from jepa_jax.training.mlp import MLP
from jepa_jax.training.products import use_bfloat16_products


@dataclass(frozen=True)
class Model:
    """An encoder during training: the inputs' scale, and the precision of products.

    Attributes:
        encoder: the architecture.
        bfloat16_products: see `products`.
    """

    encoder: EncoderSpec | MLP
    bfloat16_products: bool = False

    def init(self, seed: int) -> Params:
        """Parameters before training."""
        if isinstance(self.encoder, MLP):
            return self.encoder.init(seed)
        return initialize_params(self.encoder.vit, seed)

    def module(self, params: Params) -> ViT:
        """The vision transformer around parameters."""
        assert isinstance(self.encoder, EncoderSpec)
        module = build_module(self.encoder.vit, params)
        if self.bfloat16_products:
            use_bfloat16_products(module)
        return module

    def standardize(self, images: jax.Array) -> jax.Array:
        """Images in [0, 1] to the encoder's input, by its own recipe; vectors stay as they are."""
        if isinstance(self.encoder, MLP):
            return images
        recipe = self.encoder.preprocess
        return (images - jnp.asarray(recipe.mean)) / jnp.asarray(recipe.std)

    def embed(self, params: Params, examples: jax.Array) -> jax.Array:
        """Images in [0, 1] [..., H, W, 3], or vectors [..., D], to embeddings [..., K]."""
        axes = 1 if isinstance(self.encoder, MLP) else 3
        leading = examples.shape[: examples.ndim - axes]
        flat = self.standardize(examples).reshape(-1, *examples.shape[-axes:])
        embeddings = self.encoder(params, flat) if isinstance(self.encoder, MLP) else self.module(params)(flat)
        return embeddings.reshape(*leading, -1)


def pixels(images: jax.Array) -> jax.Array:
    """uint8 images to [0, 1]; floating-point examples stay as they are."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images
