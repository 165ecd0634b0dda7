"""The pure function behind an encoder: what is differentiated and scored."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders.layerwise import cut_params, cut_spec, has_head, layer_numbers
from jepa_jax.encoders.parameters import Params, build_module, parameter_shapes
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.encoders.vit import check_axes
from jepa_jax.errors import ArgumentError
from jepa_jax.layers import Cost, EntryLayer, Exit, Layer, Schedule, Sizes
from jepa_jax.layers.layer import no_null_directions
from jepa_jax.numerics.products import Products


@dataclass(frozen=True)
class EncoderFunction:
    """The pure function (params, images) -> embeddings of an architecture; equal specs are equal functions.

    Attributes:
        vit: the architecture.
        gaussian: whether it was trained to embeddings distributed as N(0, I).
        layer_numbers: layers whose own embeddings are scored as well, ascending; see `jepa_jax.encoders.layerwise`.
    """

    vit: ViTSpec
    gaussian: bool = False
    layer_numbers: tuple[int, ...] = ()

    def __call__(self, params: Params, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, K]; of clips, [B, T, H, W, 3]."""
        return build_module(self.vit, params)(images)

    layered = True

    def with_layers(self, layers: Sequence[int]) -> EncoderFunction:
        """The same, with layers (counted from 1, or from -1 back) to be scored as well."""
        return dataclasses.replace(self, layer_numbers=layer_numbers(layers, self.vit.depth))

    @property
    def exit_numbers(self) -> tuple[int, ...]:
        """Those of them that have an exit of their own: all but the last block's, where that is the encoder itself."""
        own = () if has_head(self.vit) else (self.vit.depth,)
        return tuple(number for number in self.layer_numbers if number not in own)

    def cut(self, params: Params, layer: int) -> tuple[EncoderFunction, Params]:
        """The encoder of a layer, a number from 1 on, and its parameters."""
        return EncoderFunction(cut_spec(self.vit, layer)), cut_params(params, layer)

    def exits(self, params: Params, shape: tuple[int, ...], schedule: Schedule) -> tuple[Exit, ...]:
        """Those of `exit_numbers`, and the encoder's own at the end, for one image of a shape (H, W, 3), or a clip."""
        return build_module(self.vit, params).exits(self.vit.grid(shape), schedule, self.exit_numbers)

    def layers(
        self, params: Params, shape: tuple[int, ...], schedule: Schedule
    ) -> tuple[EntryLayer, *tuple[Layer, ...]]:
        """The layers around given parameters, for one image of a shape (H, W, 3), or a clip of (T, H, W, 3)."""
        return build_module(self.vit, params).layers(self.vit.grid(shape), schedule)

    def cost(self, shape: tuple[int, ...], rows: int, schedule: Schedule, products: Products) -> Cost:
        """What one image of a shape (H, W, 3), or clip of (T, H, W, 3), costs with so many rows in a pass.

        Of layers that are scored as well, an equal share of the rows goes along.
        """
        costs: list[Cost] = []
        of_layer = math.ceil(rows * self.vit.width / self.vit.embedding_size)
        shallow = dataclasses.replace(self.vit, depth=1)  # blocks are alike, and each takes a while to build

        def add_up(params: Params) -> None:
            module, grid = build_module(shallow, params), self.vit.grid(shape)
            own, layers = (module.sizes(grid, count, schedule, products) for count in (rows, of_layer))
            *others, last = module.exits(grid, schedule, self.exit_numbers, repeated=self.vit.depth)
            runs: list[Sizes] = []
            for leave, sizes in [(last, own), *((leave, layers) for leave in reversed(others))]:
                costs.extend(layer.cost(sizes) for layer in leave.head)
                runs.append(sizes)
                if leave.blocks is not None:
                    costs.append(leave.blocks.cost_of_runs(runs))
                    joined = dataclasses.replace(own, rows=sum(run.rows for run in runs), active=own.tokens)
                    costs.extend(layer.cost(joined) for layer in leave.before)
                    runs = [joined]

        jax.eval_shape(add_up, parameter_shapes(shallow))  # costs hang on shapes alone
        return sum(costs, Cost())

    def check_batch(self, shape: tuple[int, ...]) -> None:
        """Refuse what is no batch of images, or of clips."""
        check_axes("batch has", shape, self.vit)
        if 0 in shape:
            raise ArgumentError(
                f"batch has shape {shape}; it must be [B, {self.vit.frame_axes}], with one example at least."
            )

    def coarsest_dtype(self, params: Params, batch: jax.Array | jax.ShapeDtypeStruct) -> np.dtype:
        """The batch's own: kernels that are stored in fewer digits are widened before they multiply."""
        del params
        return batch.dtype


def layer_ranks(vit: ViTSpec, inputs: int, layers: Sequence[int]) -> dict[int, int]:
    """Of how many singular values each layer's score is the sum, by the layer's number from 1 on; of D inputs."""
    cuts = {number: cut_spec(vit, number) for number in layer_numbers(layers, vit.depth)}
    return {number: min(inputs, cut.embedding_size - null_direction_count(cut)) for number, cut in cuts.items()}


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
