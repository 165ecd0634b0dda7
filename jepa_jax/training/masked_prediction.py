"""I-JEPA: from one part of an image, predict another part's embedding (Assran et al. 2023, arXiv 2301.08243)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.encoders import ViTSpec
from jepa_jax.encoders.parameters import Params
from jepa_jax.encoders.vit import ViT, layer_norm, transformer_block
from jepa_jax.errors import ArgumentError
from jepa_jax.training.models import Model, pixels
from jepa_jax.training.objectives import Terms


@dataclass(frozen=True)
class MaskedPrediction:
    """Predict the target encoder's tokens inside blocks from the context encoder's tokens outside of them.

    Departs from the paper in two points, both for static shapes: all blocks have one shape, and the context is a
    random choice of as many of the tokens outside the blocks as there are when no two blocks overlap.

    Attributes:
        blocks: number of target blocks per image.
        block_shape: their rows and columns, patches.
        predictor_width, predictor_depth: the predictor is a narrow ViT.
        target_decay: of the moving average that gives the targets.
    """

    blocks: int = 4
    block_shape: tuple[int, int] = (3, 3)
    predictor_width: int = 64
    predictor_depth: int = 2
    target_decay: float = 0.996

    gaussian = False

    def init(self, model: Model, key: jax.Array) -> dict[str, Any]:
        """The predictor's parameters."""
        vit = self._vit(model)
        if self.blocks * self.block_shape[0] * self.block_shape[1] >= vit.native_grid**2:
            raise ArgumentError(f"{self.blocks} blocks of {self.block_shape} leave no context in {vit.native_grid}^2.")
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        return nnx.to_pure_dict(nnx.state(Predictor(vit, self, rngs=nnx.Rngs(seed))))

    def loss(
        self, model: Model, params: dict[str, Any], target: Params, examples: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[Terms, jax.Array]]:
        """The loss, its terms, and the targets' mean-pooled embeddings [B, d].

        Args:
            model: the encoder that is trained.
            params: ``encoder`` and ``head`` (the predictor).
            target: the moving average of the encoder.
            examples: images [B, H, W, 3].
            key: of the masks.
        """
        images = model.standardize(pixels(examples))
        keys = jax.random.split(key, images.shape[0])
        context, blocks = jax.vmap(
            lambda k: draw_masks(k, self._vit(model).native_grid, self.blocks, self.block_shape)
        )(keys)

        teacher = model.module(target)
        tokens = jax.lax.stop_gradient(normed_tokens(teacher, teacher.embed(images)))  # [B, N, d]
        student = model.module(params["encoder"])
        seen = normed_tokens(student, _take(student.embed(images), context))  # [B, C, d]
        predicted = self._predictor(model, params["head"])(seen, context, blocks)  # [B, M, P, d]
        wanted = jax.vmap(lambda image, indices: image[indices])(tokens, blocks)
        loss = prediction_loss(predicted, wanted)
        return loss, ({"prediction": loss}, tokens.mean(axis=1))

    def _vit(self, model: Model) -> ViTSpec:
        vit = getattr(model.encoder, "vit", None)
        if vit is None or vit.prefix_tokens or vit.projection:
            raise ArgumentError("MaskedPrediction needs a ViT of patch tokens alone, without a projection.")
        if vit.rotary_base is not None:
            raise ArgumentError(
                f"rotary_base={vit.rotary_base}: MaskedPrediction needs position embeddings; leave it out."
            )
        return vit

    def _predictor(self, model: Model, params: Params) -> Predictor:
        graph, state = nnx.split(nnx.eval_shape(lambda: Predictor(self._vit(model), self, rngs=nnx.Rngs(0))))
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state)


class Predictor(nnx.Module):
    """Context tokens, and one mask token per wanted position, through a narrow transformer."""

    def __init__(self, vit: ViTSpec, objective: MaskedPrediction, *, rngs: nnx.Rngs):
        width = objective.predictor_width
        narrow = dataclasses.replace(
            vit, width=width, heads=max(1, width // 32), mlp_width=4 * width, depth=objective.predictor_depth
        )
        self.inward = nnx.Linear(vit.width, width, rngs=rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (width,)))
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (vit.native_grid**2, width)))
        self.blocks = nnx.List([transformer_block(narrow, rngs) for _ in range(narrow.depth)])
        self.norm = layer_norm(narrow)
        self.outward = nnx.Linear(width, vit.width, rngs=rngs)

    def __call__(self, seen: jax.Array, context: jax.Array, blocks: jax.Array) -> jax.Array:
        """Predict every block by itself.

        Args:
            seen: context tokens [B, C, d].
            context: their positions [B, C].
            blocks: wanted positions [B, M, P].

        Returns:
            [B, M, P, d].
        """
        batch, count, size = blocks.shape
        known = self.inward(seen) + self.positions[...][context]
        wanted = self.mask_token + self.positions[...][blocks]
        known = jnp.broadcast_to(known[:, None], (batch, count, *known.shape[1:]))
        tokens = jnp.concatenate([known, wanted], axis=2).reshape(batch * count, -1, known.shape[-1])
        for block in self.blocks:
            tokens = block(tokens)
        return self.outward(self.norm(tokens[:, -size:])).reshape(batch, count, size, -1)


def draw_masks(key: jax.Array, grid: int, count: int, shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Random target blocks on a square grid, and a context that avoids them.

    Returns:
        Context positions [grid^2 - count * rows * columns], and block positions [count, rows * columns].
    """
    rows, columns = shape
    place, order = jax.random.split(key)
    limits = jnp.array([grid - rows + 1, grid - columns + 1])
    corners = jax.random.randint(place, (count, 2), 0, limits)
    inside = (jnp.arange(rows)[:, None] * grid + jnp.arange(columns)).reshape(-1)
    blocks = corners[:, :1] * grid + corners[:, 1:] + inside
    free = jnp.ones(grid**2).at[blocks.reshape(-1)].set(0.0)
    ranked = jnp.argsort(-(free + jax.random.uniform(order, free.shape, maxval=0.5)))
    return jnp.sort(ranked[: grid**2 - count * rows * columns]), blocks


def prediction_loss(predicted: jax.Array, wanted: jax.Array) -> jax.Array:
    """Smooth L1 distance of predictions from LayerNormed targets (without scale and bias), as the authors' code.

    Args:
        predicted: [..., d].
        wanted: the target encoder's tokens, [..., d].
    """
    centred = wanted - wanted.mean(axis=-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
    apart = jnp.abs(predicted - normal)
    return jnp.mean(jnp.where(apart < 1.0, 0.5 * apart**2, apart - 0.5))


def normed_tokens(module: ViT, tokens: jax.Array) -> jax.Array:
    """Tokens [B, N, d] through blocks and the final LayerNorm."""
    for block in module.blocks:
        tokens = block(tokens)
    return module.norm(tokens)


def _take(tokens: jax.Array, indices: jax.Array) -> jax.Array:
    """Some tokens of each image: [B, N, d] and [B, C] to [B, C, d]."""
    return jnp.take_along_axis(tokens, indices[..., None], axis=1)
