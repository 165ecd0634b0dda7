"""One vision transformer in Flax nnx for every family, composed of `jepa_jax.layers`.

Images are NHWC, and clips NTHWC: what is said of images holds for clips too. Parameters are laid out for products from
the right (``x @ kernel``), with query, key and value fused into one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.encoders.specs import Pooling as PoolingName
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.errors import ArgumentError
from jepa_jax.layers import (
    MLP,
    Attention,
    AttentionPool,
    AxialRotary,
    Block,
    ClassToken,
    EntryLayer,
    Exit,
    L2Normalize,
    Layer,
    LayerNorm,
    MeanPatches,
    PatchEmbedding,
    Pooling,
    Positions,
    Projection,
    RotaryAttention,
    Sizes,
    Stack,
    SwiGLU,
    TubeletEmbedding,
    TubeletRotary,
)
from jepa_jax.layers.layer import INITIAL
from jepa_jax.layers.rotary import Grid, Rotary
from jepa_jax.layers.schedule import Schedule
from jepa_jax.numerics.products import Products

POOLINGS: dict[PoolingName, type[Pooling]] = {"class_token": ClassToken, "mean_patches": MeanPatches}
"""Those without parameters; ``attention`` has some, and is a part of the encoder."""


def layer_norm(spec: ViTSpec) -> LayerNorm:
    """A LayerNorm of an architecture."""
    return LayerNorm(spec.width, spec.norm_eps)


def transformer_block(spec: ViTSpec, rngs: nnx.Rngs) -> Block:
    """A block of an architecture."""
    biases = {"qkv_bias": spec.qkv_bias, "key_bias": spec.key_bias}
    if spec.rotary_base is None:
        attention = Attention(spec.width, spec.heads, rngs, **biases)
    else:
        rotary: Rotary = AxialRotary(spec.prefix_tokens, spec.rotary_base, spec.rotary_periods)
        if spec.tubelet is not None:
            rotary = TubeletRotary(spec.rotary_base)
        attention = RotaryAttention(spec.width, spec.heads, rngs, rotary, **biases)
    if spec.activation == "swiglu":
        mlp = SwiGLU(spec.width, spec.mlp_width, rngs)
    else:
        mlp = MLP(spec.width, spec.mlp_width, spec.activation, rngs)
    return Block((layer_norm(spec), layer_norm(spec)), attention, mlp, spec.layer_scale)


def patch_embedding(spec: ViTSpec, rngs: nnx.Rngs) -> PatchEmbedding:
    """How an architecture cuts an image, or a clip."""
    if spec.tubelet is None:
        return PatchEmbedding(spec.patch_size, spec.width, rngs, use_bias=spec.patch_bias)
    return TubeletEmbedding(spec.tubelet, spec.patch_size, spec.width, rngs, use_bias=spec.patch_bias)


def attention_pool(spec: ViTSpec, rngs: nnx.Rngs) -> AttentionPool:
    """SigLIP's head of an architecture; its MLP is as wide as a block's."""
    assert spec.activation != "swiglu"  # the spec refuses it
    mlp = MLP(spec.width, spec.mlp_width, spec.activation, rngs)
    return AttentionPool(spec.width, spec.heads, layer_norm(spec), mlp, rngs)


class ViT(nnx.Module):
    """Vision transformer from images to embeddings.

    Calling it gives the embedding [B, K]; `intermediates` names every stage, for parity tests; `layers` is the same as
    a list of layers, from which its Jacobian is made.
    """

    def __init__(self, spec: ViTSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.patch_embedding = patch_embedding(spec, rngs)
        if spec.class_token:
            self.class_token = nnx.Param(INITIAL(rngs.params(), (spec.width,)))
        if spec.register_tokens:
            self.register_tokens = nnx.Param(INITIAL(rngs.params(), (spec.register_tokens, spec.width)))
        if spec.rotary_base is None:
            positions = spec.class_positions + spec.native_grid**2
            self.position_embedding = nnx.Param(INITIAL(rngs.params(), (positions, spec.width)))
        if spec.pre_norm:
            self.pre_norm = layer_norm(spec)
        self.blocks = nnx.List([transformer_block(spec, rngs) for _ in range(spec.depth)])
        self.norm = layer_norm(spec)
        if spec.pooling == "attention":
            self.attention_pool = attention_pool(spec, rngs)
        if spec.projection:
            self.projection = Projection(spec.width, spec.projection, rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Embed images.

        Args:
            images: float [B, H, W, 3], preprocessed; H and W multiples of the patch size. Clips [B, T, H, W, 3]
                where the architecture has tubelets; T a multiple of these.

        Returns:
            Embeddings [B, K].
        """
        return self.intermediates(images)["embedding"]

    def intermediates(self, images: jax.Array) -> dict[str, jax.Array]:
        """Every stage by name: ``tokens`` [B, N, d], ``block_0`` ..., ``normed``, ``pooled``, ``embedding`` [B, K]."""
        stages = {"tokens": self.embed(images)}
        tokens = stages["tokens"]
        for i, block in enumerate(self._blocks(self._grid(images))):
            tokens = stages[f"block_{i}"] = block(tokens)
        stages["normed"] = self.norm(tokens)
        for layer in self._pooled(self._grid(images)):
            tokens = layer(tokens)
        stages["pooled"] = tokens[:, 0]
        for layer in self._head():
            tokens = layer(tokens)
        stages["embedding"] = tokens[:, 0]
        return stages

    def embed(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] to the first block's tokens [B, N, d]: class token, registers, then patches by row.

        Those of clips [B, T, H, W, 3] go by time, then by row.
        """
        grid = self._grid(images)
        patches = self.patch_embedding(images)
        tokens = self._positions(grid)(patches.reshape(len(images), -1, self.spec.width))
        return self.pre_norm(tokens) if self.spec.pre_norm else tokens

    def layers(self, grid: Grid, schedule: Schedule) -> tuple[EntryLayer, *tuple[Layer, ...]]:
        """All layers in their order, for images of so many patches along each axis."""
        return (
            self.patch_embedding,
            *self._to_tokens(grid),
            Stack(self._blocks(grid), loops=schedule.loops),
            *self.after_blocks(grid),
        )

    def exits(self, grid: Grid, schedule: Schedule, numbers: Sequence[int], repeated: int = 1) -> tuple[Exit, ...]:
        """The exits behind some blocks (ascending, 1 for the first), and the encoder's own, at the end.

        Behind a block its tokens are pooled as the encoder's own are, through its final LayerNorm; a projection or a
        division by the length belongs to the encoder's own embedding alone.

        Args:
            grid: patches along each axis.
            schedule: of the Jacobian.
            numbers: of these blocks.
            repeated: the blocks stand so many times, one after the other: for what hangs on shapes alone.
        """
        blocks, start, found = repeated * self._blocks(grid), 0, []
        before: tuple[Layer, ...] = (self.patch_embedding, *self._to_tokens(grid))
        for end, head in [*((n, self._pooled(grid)) for n in numbers), (len(blocks), self.after_blocks(grid))]:
            between = Stack(blocks[start:end], loops=schedule.loops) if end > start else None
            found.append(Exit(before, between, head))
            start, before = end, ()
        return tuple(found)

    def sizes(self, grid: Grid, rows: int, schedule: Schedule, products: Products) -> Sizes:
        """What the layers' costs depend on; see `Sizes`."""
        tokens = self.spec.prefix_tokens + math.prod(grid)
        return Sizes(grid, tokens, self._pooling(grid).active(tokens), rows, schedule, products)

    def _to_tokens(self, grid: Grid) -> tuple[Layer, ...]:
        """From patches to the first block's tokens."""
        return (self._positions(grid), self.pre_norm) if self.spec.pre_norm else (self._positions(grid),)

    def _blocks(self, grid: Grid) -> list[Block]:
        return [block.on(grid) for block in self.blocks]

    def _positions(self, grid: Grid) -> Positions:
        spec, native, embedding = self.spec, self.spec.native_grid, None
        prefix = [jnp.zeros((0, spec.width), self.norm.scale.dtype)]
        if spec.class_token:
            prefix.append(self.class_token[None])
        if spec.rotary_base is None:
            of_class, of_patches = jnp.split(self.position_embedding[...], [spec.class_positions])
            embedding = of_patches.reshape(native, native, spec.width)
            if spec.class_positions:
                prefix[-1] = prefix[-1] + of_class
        if spec.register_tokens:
            prefix.append(self.register_tokens[...])
        return Positions(jnp.concatenate(prefix), embedding, grid, spec.position_resize)

    def after_blocks(self, grid: Grid) -> tuple[Layer, ...]:
        """From the last block's tokens to the embedding."""
        return (*self._pooled(grid), *self._head())

    def _pooled(self, grid: Grid) -> tuple[Layer, ...]:
        """To the one token that is pooled, through the final LayerNorm."""
        pooling = self._pooling(grid)
        # Behind the norm, the one token that there is is taken: all null directions are its own.
        return (pooling, self.norm, ClassToken(0, 1)) if self.spec.norm_after_pooling else (self.norm, pooling)

    def _pooling(self, grid: Grid) -> Pooling | AttentionPool:
        if self.spec.pooling == "attention":
            return self.attention_pool
        return POOLINGS[self.spec.pooling](self.spec.prefix_tokens, math.prod(grid))

    def _head(self) -> tuple[Layer, ...]:
        projection = [self.projection] if self.spec.projection else []
        return (*projection, *([L2Normalize()] if self.spec.l2_normalize else []))

    def _grid(self, images: jax.Array) -> Grid:
        _check_images(images, self.spec)
        return self.spec.grid(images.shape[1:])


def check_axes(whose: str, shape: tuple[int, ...], spec: ViTSpec) -> None:
    """Refuse an array whose axes are not those of a batch for an architecture; ``whose`` begins the error."""
    if spec.tubelet is None:
        clips = len(shape) == 5 and shape[-1] == 3
        if clips:
            raise ArgumentError(
                f"{whose} shape {shape}, clips; this encoder takes images, [B, H, W, 3], channels last."
            )
        if len(shape) != 4 or shape[-1] != 3:
            raise ArgumentError(f"{whose} shape {shape}; it must be [B, H, W, 3], channels last.")
        return
    if len(shape) == 4 and shape[-1] == 3:
        raise ArgumentError(
            f"{whose} shape {shape}, images or one clip; this encoder takes clips, "
            "[B, T, H, W, 3], channels last: write clip[None] for one."
        )
    if len(shape) != 5 or shape[-1] != 3:
        raise ArgumentError(f"{whose} shape {shape}; it must be [B, T, H, W, 3], channels last.")
    if not shape[1] or shape[1] % spec.tubelet:
        raise ArgumentError(
            f"{whose} shape {shape}, clips of {shape[1]} frames; it must be a multiple of {spec.tubelet}, which "
            "one patch covers."
        )


def _check_images(images: jax.Array, spec: ViTSpec) -> None:
    shape, p = images.shape, spec.patch_size
    height, width = shape[-3:-1] if len(shape) >= 3 else (0, 0)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ArgumentError(
            f"images have dtype {images.dtype}; pass preprocessed floating-point images (Encoder.preprocess)."
        )
    check_axes("images have", shape, spec)
    if min(height, width) < p or (not spec.cut_edges and (height % p or width % p)):
        raise ArgumentError(
            f"images are {height} x {width} pixels, which is no multiple of the patch size {p}; "
            "resize or crop them (Encoder.preprocess does)."
        )
    if spec.pooling == "attention" and height // p * (width // p) < 2:
        raise ArgumentError(
            f"images are {height} x {width} pixels, one patch of {p}: pooling by attention needs two or more."
        )
