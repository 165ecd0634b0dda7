"""Equal blocks one after the other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.block import Block
from jepa_jax.layers.layer import Cost, Layer, Sizes
from jepa_jax.layers.schedule import Schedule
from jepa_jax.numerics.products import Products


class Stacked(NamedTuple):
    """Residuals or kernels of blocks: of all but the last, and of the last.

    Of the others with a leading axis for their number if blocks are looped over, else one after the other. The last
    block may begin its way back with fewer tokens (the class token alone), so it stands before the loop; kept apart
    from the beginning, nothing has to be cut out of the stack, which would copy it.
    """

    others: Any
    last: Any


class Stack(Layer):
    """Blocks as one layer.

    Args:
        blocks: one after the other.
        loops: whether one block is compiled and looped over, whatever their number. If not, each is compiled, and
            nothing is ever cut out of a stack, which an accelerator does by copying.
    """

    heavy = True

    def __init__(self, blocks: Sequence[Block], *, loops: bool = True):
        self.blocks = blocks
        self.loops = loops

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, Stacked]:
        """[N, d] -> [N, d], and the blocks' residuals."""
        graph, _ = nnx.split(self.blocks[0])

        def step(tokens: jax.Array, state: nnx.State) -> tuple[jax.Array, Any]:
            return nnx.merge(graph, state).linearize(tokens)

        *others, last = self.blocks
        kept: Any = None
        if not self.loops:
            kept = []
            for block in others:
                tokens, of_block = block.linearize(tokens)
                kept.append(of_block)
        elif others:
            tokens, kept = jax.lax.scan(step, tokens, stack(*map(nnx.state, others)))
        tokens, of_last = last.linearize(tokens)
        return tokens, Stacked(kept, of_last)

    def prepare(self, products: Products) -> Stacked:
        """The blocks' kernels."""
        *others, last = (block.prepare(products) for block in self.blocks)
        if not self.loops:
            return Stacked(others, last)
        return Stacked(stack(*others) if others else None, last)

    def pullback(
        self,
        kernels: Stacked,
        residuals: Stacked,
        cotangent: jax.Array,
        products: Products,
        schedule: Schedule,
    ) -> jax.Array:
        """See `Layer.pullback`: [A, R, d] -> [N, R, d]."""
        return self.pullback_runs(kernels, residuals, [cotangent], products, schedule)

    def pullback_runs(
        self,
        kernels: Stacked,
        residuals: Stacked,
        runs: Sequence[jax.Array],
        products: Products,
        schedule: Schedule,
    ) -> jax.Array:
        """`pullback` of runs of rows [A, R, d], each with its own A and R: [N, sum of R, d], in their order.

        In the last block those with equal A go together, so that a run of few tokens is pruned; before it, all do.
        """
        block = self.blocks[0]

        def through(cotangent: jax.Array, of_block: tuple[Any, Any]) -> tuple[jax.Array, None]:
            return block.pullback(*of_block, cotangent, products, schedule), None

        of_last = kernels.last, residuals.last
        behind = [through(run, of_last)[0] for run in joined_runs(runs)]
        cotangent = behind[0] if len(behind) == 1 else jnp.concatenate(behind, axis=1)
        if not self.loops:
            for of_block in reversed(list(zip(kernels.others, residuals.others, strict=True))):
                cotangent, _ = through(cotangent, of_block)
            return cotangent
        if kernels.others is None:
            return cotangent
        return jax.lax.scan(through, cotangent, (kernels.others, residuals.others), reverse=True)[0]

    def cost(self, sizes: Sizes) -> Cost:
        """All blocks see all tokens, but for the last one, which may be pruned."""
        return self.cost_of_runs([sizes])

    def cost_of_runs(self, runs: Sequence[Sizes]) -> Cost:
        """Of `pullback_runs`: sizes that differ in their rows and active tokens."""
        block, first = self.blocks[0], runs[0]
        whole = dataclasses.replace(first, active=first.tokens, rows=sum(run.rows for run in runs))
        by_active: dict[int, int] = {}
        for run in runs:
            by_active[run.active] = by_active.get(run.active, 0) + run.rows
        last = [block.cost(dataclasses.replace(first, active=a, rows=rows)) for a, rows in by_active.items()]
        shared = {"forward": 0, "kernels": 0, "residuals": 0}  # of the block, whatever goes back through it
        others = [dataclasses.replace(cost, **shared) for cost in last[1:]]
        return block.cost(whole).times(len(self.blocks) - 1) + sum(others, last[0])


def joined_runs(runs: Sequence[jax.Array]) -> list[jax.Array]:
    """Runs of rows [A, R, d] in their order, neighbours with equal A as one."""
    groups = [list(group) for _, group in itertools.groupby(runs, key=lambda run: run.shape[0])]
    return [group[0] if len(group) == 1 else jnp.concatenate(group, axis=1) for group in groups]


def stack(*trees: Any) -> Any:
    """Equal trees of arrays to one, with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
