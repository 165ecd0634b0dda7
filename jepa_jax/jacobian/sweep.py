"""The Jacobians of several layers of an encoder, by one sweep over its blocks.

What the layers share is done once: the forward pass, and what the way back keeps of it; the kernels of the parameters;
and the way back itself. From the last block backwards, the rows of each layer's Jacobian join those of the later ones
as soon as they have come to the same tokens, and from there all go on together. What a block makes of a token for its
way back is then made once for all of them: an MLP's folded matrix above all, whose making takes more multiplications
than the rows of one layer that go through it. Rows never mix, so that each Jacobian is that of the encoder cut there.

Not shared are the rows' own products, and the spectra.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jepa_jax.jacobian.fold import Kernels, Linearization, entry_layer
from jepa_jax.layers import Exit, Layer, NullDirections, Schedule
from jepa_jax.layers.layer import no_null_directions
from jepa_jax.numerics.products import Products, normalized


class Kept(NamedTuple):
    """Of the layers of an exit: kernels, or residuals."""

    before: tuple[Any, ...]
    blocks: Any
    head: tuple[Any, ...]


def prepare(exits: Sequence[Exit], products: Products) -> Kernels:
    """What the way back needs of the parameters alone, compact (see `fold.prepare`): a `Kept` of each exit."""
    first = exits[0].before
    of_entry = entry_layer(first).prepare_compact(products)

    def of(layers: Sequence[Layer]) -> tuple[Any, ...]:
        return tuple(layer.prepare(products) for layer in layers)

    def kept(each: Exit, before: tuple[Any, ...]) -> Kept:
        return Kept(before, None if each.blocks is None else each.blocks.prepare(products), of(each.head))

    return (kept(exits[0], (of_entry, *of(first[1:]))), *(kept(each, ()) for each in exits[1:]))


def linearize(exits: Sequence[Exit], image: jax.Array) -> list[Linearization]:
    """The forward pass of one image, [*input], with embedding and null directions of each exit, and its `Kept`."""
    tokens, nulls, found = image, no_null_directions(image.reshape(1, -1)), []
    for each in exits:
        tokens, nulls, before = _forward(each.before, tokens, nulls)
        tokens, nulls, blocks = _forward([] if each.blocks is None else [each.blocks], tokens, nulls)
        embedding, own, head = _forward(each.head, tokens, nulls)
        found.append(Linearization(embedding[0], own.shared, Kept(before, blocks[0] if blocks else None, head)))
    return found


def _forward(
    layers: Sequence[Layer], tokens: jax.Array, nulls: NullDirections
) -> tuple[jax.Array, NullDirections, tuple[Any, ...]]:
    residuals = []
    for layer in layers:
        tokens, kept = layer.linearize(tokens)
        nulls = layer.null_directions(nulls, tokens)
        residuals.append(kept)
    return tokens, nulls, tuple(residuals)


def jacobian_transposes(
    exits: Sequence[Exit],
    kernels: Kernels,
    linearizations: Sequence[Linearization],
    products: Products,
    schedule: Schedule,
    *,
    rows: Sequence[jax.Array],
    block_size: int | None = None,
) -> list[jax.Array]:
    """J^T of each exit, up to an isometry of the input: [P, m, R] with its own R.

    Args:
        exits: of the encoder.
        kernels: what `prepare` returned.
        linearizations: what `linearize` returned.
        products: takes the products with rows in them.
        schedule: how tokens and heads are gone through.
        rows: of each exit, which rows, [R]; a number outside 0 .. K - 1 gives zeros.
        block_size: rows of the last exit in one pass, by default all; the others' are dealt out among as many passes.
    """
    sizes = [there.embedding.size for there in linearizations]
    residuals, dtype = [there.residuals for there in linearizations], linearizations[0].embedding.dtype
    passes = math.ceil(rows[-1].size / (block_size or rows[-1].size))
    each = [math.ceil(some.size / passes) for some in rows]

    def one_pass(some: Sequence[jax.Array]) -> list[jax.Array]:
        seeds = [jax.nn.one_hot(r, size, dtype=dtype)[None] for r, size in zip(some, sizes, strict=True)]
        return _pullback(exits, kernels, residuals, seeds, products, schedule)

    if passes == 1:
        return one_pass(rows)
    padded = [
        jnp.pad(some, (0, passes * count - some.size), constant_values=size).reshape(passes, count)
        for some, count, size in zip(rows, each, sizes, strict=True)
    ]
    found = jax.lax.map(one_pass, padded)
    joined = (jnp.moveaxis(parts, 0, -2).reshape(*parts.shape[1:-1], -1) for parts in found)
    return [parts[..., : some.size] for parts, some in zip(joined, rows, strict=True)]


def _pullback(
    exits: Sequence[Exit],
    kernels: Kernels,
    residuals: Sequence[Any],
    seeds: Sequence[jax.Array],
    products: Products,
    schedule: Schedule,
) -> list[jax.Array]:
    """Rows of each exit's Jacobian, as columns [P, m, R], from cotangents [1, R, K] of its embedding."""
    runs: list[jax.Array] = []  # rows of the exits up to here, the nearest first
    scales: list[jax.Array | None] = []

    def back(layers: Sequence[Layer], kernels: Any, kept: Any, cotangent: jax.Array) -> jax.Array:
        for layer, kernel, residual in reversed(list(zip(layers, kernels, kept, strict=True))):
            cotangent = layer.pullback(kernel, residual, cotangent, products, schedule)
        return cotangent

    for each, kernel, kept, seed in reversed(list(zip(exits, kernels, residuals, seeds, strict=True))):
        own, scale = normalized(products, back(each.head, kernel.head, kept.head, seed))
        runs, scales = [own, *runs], [scale, *scales]
        if each.blocks is not None:
            runs = [each.blocks.pullback_runs(kernel.blocks, kept.blocks, runs, products, schedule)]
    (together,) = runs
    layers, of_layers, kept = exits[0].before, kernels[0].before, residuals[0].before
    together = back(layers[1:], of_layers[1:], kept[1:], together)
    transpose = entry_layer(layers).pullback_transpose(of_layers[0], kept[0], together, products, schedule)
    ends = list(itertools.accumulate(seed.shape[1] for seed in seeds))
    parts = jnp.split(transpose, ends[:-1], axis=-1)
    return [part if scale is None else part * scale for part, scale in zip(parts, scales, strict=True)]
