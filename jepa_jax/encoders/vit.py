"""One vision transformer in Flax nnx for every family.

Layers are plain: they are the reference for every faster path. Images are NHWC. Parameters are laid
out for products from the right (``x @ kernel``), with query, key and value fused into one kernel.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.encoders.positions import resize_positions
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.errors import ArgumentError

_INITIAL = jax.nn.initializers.truncated_normal(stddev=0.02)


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs, use_bias: bool = True) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, use_bias=use_bias, kernel_init=_INITIAL, rngs=rngs)


class LayerNorm(nnx.Module):
    """LayerNorm over the last axis, in the input's precision.

    flax's own refuses float64 where promotion is strict, and its default variance E[x^2] - E[x]^2
    cancels in float32: the Jacobian's small singular values show it.
    """

    def __init__(self, spec: ViTSpec):
        self.epsilon = spec.norm_eps
        self.scale = nnx.Param(jnp.ones(spec.width))
        self.bias = nnx.Param(jnp.zeros(spec.width))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[..., d] -> [..., d]."""
        return self.normalize(tokens)[0] * self.scale + self.bias

    def normalize(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Tokens [..., d] without mean and with unit variance, and their 1 / std [...]."""
        deviation = tokens - jnp.mean(tokens, axis=-1, keepdims=True)
        inverse_std = jax.lax.rsqrt(jnp.mean(deviation**2, axis=-1) + self.epsilon)
        return deviation * inverse_std[..., None], inverse_std


class PatchEmbedding(nnx.Module):
    """Non-overlapping patches times one matrix: a strided convolution, written as the product that it is."""

    def __init__(self, spec: ViTSpec, rngs: nnx.Rngs):
        self.patch_size = spec.patch_size
        self.projection = _linear(3 * spec.patch_size**2, spec.width, rngs, use_bias=spec.patch_bias)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, rows, columns, d]."""
        batch, height, width, channels = images.shape
        p = self.patch_size
        patches = images.reshape(batch, height // p, p, width // p, p, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // p, width // p, p * p * channels)
        return self.projection(patches)


class Attention(nnx.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, spec: ViTSpec, rngs: nnx.Rngs):
        self.heads = spec.heads
        self.qkv = _linear(spec.width, 3 * spec.width, rngs, use_bias=spec.qkv_bias)
        self.out = _linear(spec.width, spec.width, rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, N, d]."""
        batch, length, width = tokens.shape
        head_width = width // self.heads
        qkv = self.qkv(tokens).reshape(batch, length, 3, self.heads, head_width)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * head_width**-0.5
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits, axis=-1), value)
        return self.out(mixed.reshape(batch, length, width))


class MLP(nnx.Module):
    """Two layers with a GELU between them."""

    def __init__(self, spec: ViTSpec, rngs: nnx.Rngs):
        self.activation = spec.activation
        self.fc1 = _linear(spec.width, spec.mlp_width, rngs)
        self.fc2 = _linear(spec.mlp_width, spec.width, rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, N, d]."""
        return self.fc2(self.activate(self.fc1(tokens)))

    def activate(self, hidden: jax.Array) -> jax.Array:
        """What stands between the two layers, elementwise."""
        if self.activation == "quick_gelu":
            return hidden * jax.nn.sigmoid(1.702 * hidden)
        return jax.nn.gelu(hidden, approximate=False)


class SwiGLU(nnx.Module):
    """silu(gate) * up, projected down; gate and up are the two halves of one kernel."""

    def __init__(self, spec: ViTSpec, rngs: nnx.Rngs):
        self.gate_up = _linear(spec.width, 2 * spec.mlp_width, rngs)
        self.down = _linear(spec.mlp_width, spec.width, rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, N, d]."""
        return self.down(self.activate(self.gate_up(tokens)))

    def activate(self, hidden: jax.Array) -> jax.Array:
        """Both halves [..., 2h] to one, [..., h]."""
        gate, up = jnp.split(hidden, 2, axis=-1)
        return jax.nn.silu(gate) * up


class Block(nnx.Module):
    """Pre-norm transformer block; LayerScale where the family has it."""

    def __init__(self, spec: ViTSpec, rngs: nnx.Rngs):
        self.norm1 = LayerNorm(spec)
        self.attention = Attention(spec, rngs)
        self.norm2 = LayerNorm(spec)
        self.mlp = SwiGLU(spec, rngs) if spec.activation == "swiglu" else MLP(spec, rngs)
        self.scaled = spec.layer_scale
        if self.scaled:
            self.layer_scale1 = nnx.Param(jnp.ones(spec.width))
            self.layer_scale2 = nnx.Param(jnp.ones(spec.width))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, N, d] -> [B, N, d]."""
        attended = self.attention(self.norm1(tokens))
        tokens = tokens + (attended * self.layer_scale1 if self.scaled else attended)
        mixed = self.mlp(self.norm2(tokens))
        return tokens + (mixed * self.layer_scale2 if self.scaled else mixed)


class ViT(nnx.Module):
    """Vision transformer from images to embeddings.

    Calling it gives the embedding [B, K]; `intermediates` names every stage, for parity tests.
    """

    def __init__(self, spec: ViTSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.patch_embedding = PatchEmbedding(spec, rngs)
        if spec.class_token:
            self.class_token = nnx.Param(_INITIAL(rngs.params(), (spec.width,)))
        if spec.register_tokens:
            self.register_tokens = nnx.Param(_INITIAL(rngs.params(), (spec.register_tokens, spec.width)))
        positions = int(spec.class_token) + spec.native_grid**2
        self.position_embedding = nnx.Param(_INITIAL(rngs.params(), (positions, spec.width)))
        if spec.pre_norm:
            self.pre_norm = LayerNorm(spec)
        self.blocks = nnx.List([Block(spec, rngs) for _ in range(spec.depth)])
        self.norm = LayerNorm(spec)
        if spec.projection:
            self.projection = _linear(spec.width, spec.projection, rngs, use_bias=False)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Embed images.

        Args:
            images: float [B, H, W, 3], preprocessed; H and W multiples of the patch size.

        Returns:
            Embeddings [B, K].
        """
        return self.intermediates(images)["embedding"]

    def intermediates(self, images: jax.Array) -> dict[str, jax.Array]:
        """Every stage by name: ``tokens`` [B, N, d], ``block_0`` ..., ``normed``, ``pooled``, ``embedding`` [B, K]."""
        stages = {"tokens": self.embed(images)}
        tokens = stages["tokens"]
        for i, block in enumerate(self.blocks):
            tokens = stages[f"block_{i}"] = block(tokens)
        stages["normed"] = self.norm(tokens)
        stages["pooled"] = self.pool(stages["normed"])
        stages["embedding"] = self.project(stages["pooled"])
        return stages

    def embed(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] to the first block's tokens [B, N, d]."""
        tokens = self.embed_unnormalized(images)
        return self.pre_norm(tokens) if self.spec.pre_norm else tokens

    def embed_unnormalized(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] to tokens [B, N, d]: class token, registers, then patches row by row."""
        _check_images(images, self.spec)
        patches = self.patch_embedding(images)
        batch, rows, columns, width = patches.shape
        grid = self.spec.native_grid
        positions = self.position_embedding[int(self.spec.class_token) :].reshape(grid, grid, width)
        patches = patches + resize_positions(positions, (rows, columns), self.spec.position_resize)
        parts = [patches.reshape(batch, rows * columns, width)]
        if self.spec.register_tokens:
            parts.insert(0, jnp.broadcast_to(self.register_tokens[...], (batch, *self.register_tokens.shape)))
        if self.spec.class_token:
            class_token = self.class_token + self.position_embedding[0]
            parts.insert(0, jnp.broadcast_to(class_token, (batch, 1, width)))
        return jnp.concatenate(parts, axis=1)

    def pool(self, normed: jax.Array) -> jax.Array:
        """LayerNormed tokens [B, N, d] to one vector each, [B, d]."""
        if self.spec.pooling == "class_token":
            return normed[:, 0]
        return jnp.mean(normed[:, self.spec.prefix_tokens :], axis=1)

    def project(self, pooled: jax.Array) -> jax.Array:
        """Pooled vectors [B, d] to embeddings [B, K]: projection and division by the length, where there are any."""
        if self.spec.projection:
            pooled = self.projection(pooled)
        if self.spec.l2_normalize:
            pooled = pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
        return pooled


def _check_images(images: jax.Array, spec: ViTSpec) -> None:
    shape, p = images.shape, spec.patch_size
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ArgumentError(
            f"images have dtype {images.dtype}; pass preprocessed floating-point images (Encoder.preprocess)."
        )
    if len(shape) != 4 or shape[-1] != 3:
        raise ArgumentError(f"images have shape {shape}; they must be [B, H, W, 3], channels last.")
    if shape[1] % p or shape[2] % p or not shape[1] or not shape[2]:
        raise ArgumentError(
            f"images are {shape[1]} x {shape[2]} pixels, which is no multiple of the patch size {p}; "
            "resize or crop them (Encoder.preprocess does)."
        )
