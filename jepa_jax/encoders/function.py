"""The pure function behind an encoder: what is differentiated and scored."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jepa_jax.encoders.parameters import Params, build_module, parameter_shapes
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.encoders.vit import POOLINGS, check_axes
from jepa_jax.errors import ArgumentError
from jepa_jax.layers import Cost, EntryLayer, Layer, Schedule, Stack
from jepa_jax.layers.layer import no_null_directions
from jepa_jax.numerics.products import Products


@dataclass(frozen=True)
class EncoderFunction:
    """The pure function (params, images) -> embeddings of an architecture; equal specs are equal functions.

    Attributes:
        vit: the architecture.
        gaussian: whether it was trained to embeddings distributed as N(0, I).
    """

    vit: ViTSpec
    gaussian: bool = False

    def __call__(self, params: Params, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, K]; of clips, [B, T, H, W, 3]."""
        return build_module(self.vit, params)(images)

    layered = True

    @property
    def averages_tokens(self) -> bool:
        """Whether the embedding is a mean over tokens."""
        return self.vit.pooling != "attention" and POOLINGS[self.vit.pooling].averages

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return self.vit.depth

    def layers(
        self, params: Params, shape: tuple[int, ...], schedule: Schedule
    ) -> tuple[EntryLayer, *tuple[Layer, ...]]:
        """The layers around given parameters, for one image of a shape (H, W, 3), or a clip of (T, H, W, 3)."""
        return build_module(self.vit, params).layers(self.vit.grid(shape), schedule)

    def cost(self, shape: tuple[int, ...], rows: int, schedule: Schedule, products: Products) -> Cost:
        """What one image of a shape (H, W, 3), or clip of (T, H, W, 3), costs with so many rows in a pass."""
        costs: list[Cost] = []
        shallow = dataclasses.replace(self.vit, depth=1)  # blocks are alike, and each takes a while to build

        def add_up(params: Params) -> None:
            module, grid = build_module(shallow, params), self.vit.grid(shape)
            sizes = module.sizes(grid, rows, schedule, products)
            for layer in module.layers(grid, schedule):
                whole = (
                    Stack(self.depth * list(layer.blocks), loops=layer.loops) if isinstance(layer, Stack) else layer
                )
                costs.append(whole.cost(sizes))

        jax.eval_shape(add_up, parameter_shapes(shallow))  # costs hang on shapes alone
        return sum(costs, Cost())

    def check_batch(self, shape: tuple[int, ...]) -> None:
        """Refuse what is no batch of images, or of clips."""
        check_axes("batch has", shape, self.vit)
        if 0 in shape:
            raise ArgumentError(
                f"batch has shape {shape}; it must be [B, {self.vit.frame_axes}], with one example at least."
            )


@functools.lru_cache(maxsize=64)
def null_direction_count(spec: ViTSpec) -> int:
    """Number m of structural null directions of an architecture's Jacobian (see `jepa_jax.layers.layer_norm`)."""
    shallow = dataclasses.replace(spec, depth=1)  # what comes before the last norm makes no difference

    def shared(params: Params) -> jax.Array:
        module = build_module(shallow, params)
        token = jnp.zeros((1, spec.width), module.norm.scale.dtype)
        nulls = no_null_directions(token)
        for layer in module.after_blocks((1,)):
            token, _ = layer.linearize(token)
            nulls = layer.null_directions(nulls, token)
        return nulls.shared

    return jax.eval_shape(shared, parameter_shapes(shallow)).shape[-1]
