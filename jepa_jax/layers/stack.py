"""Equal blocks one after the other."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.block import Block, BlockKernels, BlockResiduals
from jepa_jax.layers.layer import Cost, Layer, Sizes
from jepa_jax.layers.schedule import Schedule
from jepa_jax.numerics.products import Products


class Stack(Layer):
    """Blocks as one layer: compiled once and looped over, whatever their number. Residuals and kernels are stacked."""

    def __init__(self, blocks: nnx.List[Block]):
        self.blocks = blocks

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, BlockResiduals]:
        """[N, d] -> [N, d], and the blocks' residuals with a leading axis for their number."""
        graph, begun = nnx.split(self.blocks[0])
        stacked = stack(begun, *(nnx.state(block) for block in self.blocks[1:]))

        def step(tokens: jax.Array, state: nnx.State) -> tuple[jax.Array, BlockResiduals]:
            return nnx.merge(graph, state).linearize(tokens)

        return jax.lax.scan(step, tokens, stacked)

    def prepare(self) -> BlockKernels:
        """The blocks' kernels with a leading axis for their number."""
        return stack(*(block.prepare() for block in self.blocks))

    def pullback(
        self,
        kernels: BlockKernels,
        residuals: BlockResiduals,
        cotangent: jax.Array,
        products: Products,
        schedule: Schedule,
    ) -> jax.Array:
        """See `Layer.pullback`: [A, R, d] -> [N, R, d].

        The last block may begin with fewer tokens (the class token alone), so it stands before the loop.
        """

        def through(cotangent: jax.Array, block: tuple[BlockKernels, BlockResiduals]) -> tuple[jax.Array, None]:
            return self.blocks[0].pullback(*block, cotangent, products, schedule), None

        both = kernels, residuals
        cotangent, _ = through(cotangent, jax.tree.map(lambda leaf: leaf[-1], both))
        others = jax.tree.map(lambda leaf: leaf[:-1], both)
        return jax.lax.scan(through, cotangent, others, reverse=True)[0]

    def cost(self, sizes: Sizes) -> Cost:
        """All blocks see all tokens, but for the last one, which may be pruned."""
        whole = dataclasses.replace(sizes, active=sizes.tokens)
        block = self.blocks[0]
        cost = block.cost(whole).times(len(self.blocks) - 1) + block.cost(sizes)
        # The forward pass loops over stacked parameters, which are as large as the kernels of the way back.
        return dataclasses.replace(cost, kernels=2 * cost.kernels)


def stack(*trees: Any) -> Any:
    """Equal trees of arrays to one, with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
