"""The pullback of all heads as two programs for NVIDIA GPUs: the logits' cotangents, [N, N] a row and head, stay in
registers, and the cotangents of query, value and key go into one array, which the input projection takes whole.

The mathematics is that of `jepa_jax.layers.heads`, with P_ij . c_i = A_ij (v_j . c_i - o_i . c_i). The first program
multiplies many rows of one head and query with a covariance, [dh, dh], which gives the query's cotangents, and leaves
o_i . c_i. The second takes a tile of keys of one row and head through all queries, to the cotangents of its keys and
values. Tokens go in tiles of 64 and one for the rest, just as large as it must be: 257 are four tiles and one of 16.

The covariance of keys and values under a query's weights comes as the mean of their products less the product of their
means: so the means of all products of a head are one product, A times the [N, dh dh] products. Keys and values are
centred first, which changes no covariance, and leaves little to cancel.

At ``bfloat16_3x`` cotangents are float32, and every operand two bfloat16 numbers: what does not depend on the row is
taken apart beforehand, cotangents where they have been read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jepa_jax.layers.rotation import Rotation, of_parts
from jepa_jax.layers.rotation import rotate_back as turn_back
from jepa_jax.numerics.precision import Precision
from jepa_jax.numerics.products import HALF, Products
from jepa_jax.numerics.triton import (
    Parts,
    dot,
    has_triton,
    load,
    load_parts,
    parts_of,
    power_of_two,
    program,
    rows_of,
    store,
)

ALIVE: int = 5
"""The cotangents of the outputs, the three results in one array, and what passes by on the residual connection."""

_TILE = 64
"""Tokens in a tile of keys, and of queries."""

_ROWS = 128
"""Rows of the Jacobian in one step of the queries' program."""

_WARPS = 4
"""In a step. Larger tiles with more of them were slower on an H100. Of what was faster there, two rows a step or tiles
of 128 queries, jax 0.11.2 makes programs that compute wrong numbers."""

_STAGES = {1: {64: 3, 128: 2}, 2: {64: 2, 128: 1}}
"""Of the keys' program, by the parts of operands and the widest heads: as many as the shared memory of every GPU has
room for."""

_ALIGNED = 8
"""Numbers of 16 bits in the 16 bytes that a thread copies at once: rows of the weights are padded to a multiple, or
they would be copied number by number, and wait for it."""

_SMALLEST = 16
"""Side of the smallest matrix that a tensor core multiplies."""

_LARGEST = 128
"""Width of the widest heads whose tiles stay in registers."""

_PARTS: dict[Precision, int] = {**dict.fromkeys(HALF, 1), "bfloat16_3x": 2}
"""16-bit numbers that an operand is taken apart into, by level."""

_QUERY, _VALUE, _KEY = range(3)
"""Their places in the result, as in `jepa_jax.layers.heads.AttentionKernels.inward`."""


def fits(products: Products, queries: int, keys: tuple[int, ...]) -> bool:
    """Whether there is a program for so many queries and for keys [H, N, dh]: N queries, dh a power of two.

    The level's operands are 16 bits, or two times 16. ViT-H's heads of 80 and pruned last blocks go the way of XLA.
    """
    _, tokens, width = keys
    whole_tiles = _SMALLEST <= width == power_of_two(width) <= _LARGEST
    return products.precision in _PARTS and queries == tokens and whole_tiles and has_triton()


def pullback_heads(
    products: Products,
    cotangent: jax.Array,
    residuals: tuple[jax.Array, jax.Array, jax.Array],
    *,
    interpret: bool = False,
) -> jax.Array:
    """Pull rows back through all heads, for what `fits`.

    Args:
        products: of the level.
        cotangent: of the heads' outputs, [N, R, H, dh].
        residuals: query, key and value, [H, N, dh] each.
        interpret: whether to run on any device, slowly, to see that it is right.

    Returns:
        Cotangents of query, value and key, [N, R, 3H, dh].
    """
    tokens, rows, heads, width = cotangent.shape
    query, key, value = residuals
    weights = jax.nn.softmax(query @ jnp.swapaxes(key, -1, -2), axis=-1)
    output = weights @ value
    parts = _PARTS.get(products.precision, 1)
    apart = functools.partial(parts_of, count=parts, dtype=cotangent.dtype if parts == 1 else jnp.bfloat16)
    at_once = min(_ROWS, power_of_two(rows))
    pulled = jax.ShapeDtypeStruct((tokens, rows, 3 * heads, width), cotangent.dtype)
    along = jax.ShapeDtypeStruct((heads, rows, tokens), jnp.float32)
    of_queries = program(
        functools.partial(_of_queries, at_once, apart),
        (-(-rows // at_once), heads, tokens),
        (pulled, along),
        warps=_WARPS,
        stages=1,
        interpret=interpret,
    )
    of_keys = program(
        functools.partial(_of_keys_and_values, apart),
        (-(-tokens // _TILE), heads, rows),
        pulled,
        warps=_WARPS,
        stages=next(stages for widest, stages in _STAGES[parts].items() if width <= widest),
        interpret=interpret,
        aliases={2 + 3 * parts: 0},
    )
    # Turned, so that a tile of keys is read along its queries.
    turned = jnp.pad(jnp.swapaxes(weights, 1, 2), ((0, 0), (0, 0), (0, -tokens % _ALIGNED)))
    mean_key, mean_value, mean_of_both = _moments(products, weights, key, value)
    begun, along_output = of_queries(cotangent, apart(mean_of_both), mean_key, mean_value, output)
    return of_keys(cotangent, along_output, *map(apart, (turned, query, value)), begun)


def _moments(
    products: Products, weights: jax.Array, key: jax.Array, value: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Means by each query's weights: of centred keys and values, [H, N, dh], and of their products, [H, N, dh, dh]."""
    key, value = (each - jnp.mean(each, axis=1, keepdims=True) for each in (key, value))
    both = key[..., :, None] * value[..., None, :]
    return weights @ key, weights @ value, products("hij,hjfe->hife", weights, both)


def rotate_back(products: Products, pulled: jax.Array, rotation: Rotation) -> jax.Array:
    """Turn queries' and keys' cotangents back in what `pullback_heads` has left, by XLA."""
    tokens, rows, _, width = pulled.shape
    turns = Rotation(*(turn[:, None, :, None] for turn in of_parts(rotation, 3, axis=1)))
    return turn_back(products, pulled.reshape(tokens, rows, 3, -1, width), turns).reshape(pulled.shape)


def to_inputs(inward: jax.Array, pulled: jax.Array, products: Products) -> jax.Array:
    """Through the input projection [d, 3d]: what `pullback_heads` has left, to [N, R, d]."""
    tokens, rows = pulled.shape[:2]
    return products("nre,de->nrd", pulled.reshape(tokens, rows, -1), inward)


Apart = Callable[[jax.Array], Parts]
"""A level's way to take an array apart."""


def _of_queries(
    at_once: int,
    apart: Apart,
    cotangent: Any,
    mean_of_both: Any,
    mean_key: Any,
    mean_value: Any,
    output: Any,
    pulled: Any,
    along: Any,
) -> None:
    """Some rows of one head and query.

    Args:
        at_once: how many rows.
        apart: takes cotangents apart.
        cotangent: of the outputs, [N, R, H, dh].
        mean_of_both: of the products of centred keys and values, [H, N, dh of keys, dh of values], in parts.
        mean_key: of centred keys, [H, N, dh], float32, as for the next two.
        mean_value: of centred values.
        output: of the head.
        pulled: is written: [N, R, 3H, dh], queries.
        along: is written: cotangents along the output, [H, R, N], float32.
    """
    from jax.experimental import pallas as pl

    tile, head, token = (pl.program_id(axis) for axis in range(3))
    _, count, heads, width = cotangent.shape
    rows = pl.ds(tile * at_once, at_once)
    some = None if count % at_once == 0 else tile * at_once + jnp.arange(at_once) < count
    mask = rows_of(some, width)
    of_output = load(cotangent.at[token, rows, head], mask)
    wide = of_output.astype(jnp.float32)
    both = tuple(part[head, token] for part in mean_of_both)
    along_mean = jnp.sum(wide * mean_value[head, token][None, :], axis=1)
    of_query = dot(apart(of_output), both, 1, 1) - along_mean[:, None] * mean_key[head, token][None, :]
    store(pulled.at[token, rows, _QUERY * heads + head], of_query.astype(pulled.dtype), mask)
    store(along.at[head, rows, token], jnp.sum(wide * output[head, token][None, :], axis=1), some)


def _of_keys_and_values(
    apart: Apart, cotangent: Any, along: Any, weights: Any, query: Any, value: Any, _: Any, pulled: Any
) -> None:
    """One tile of keys of one head and row, through all queries.

    Args:
        apart: takes cotangents apart.
        cotangent: of the outputs, [N, R, H, dh].
        along: what `_of_queries` has left, [H, R, N].
        weights: A, keys before queries, [H, N, N and some], in parts, as the next two.
        query: [H, N, dh].
        value: [H, N, dh].
        pulled: is written: [N, R, 3H, dh], keys and values; the argument before it is the same array.
    """
    from jax.experimental import pallas as pl

    tile, head, row = (pl.program_id(axis) for axis in range(3))
    heads, tokens, width = query[0].shape
    full, rest = divmod(tokens, _TILE)
    last = full * _TILE + 0 * tile  # not a constant: Pallas refuses a constant slice that ends behind the array

    def through_queries(start: Any, size: int, count: int) -> None:
        """Of so many keys from ``start`` on, the first ``count`` of a tile."""
        keys = pl.ds(start, size)
        some = None if count == size else jnp.arange(size) < count
        values = load_parts(value, (head, keys), rows_of(some, width))

        def step(start: Any, size: int, count: int, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            queries = pl.ds(start, size)
            asking = None if count == size else jnp.arange(size) < count
            rows = rows_of(asking, width)
            of_output = apart(load(cotangent.at[queries, row, head], rows))
            asked = load_parts(query, (head, queries), rows)
            share = load_parts(weights, (head, keys, queries), _pairs_of(some, asking, values[0].shape[0], size))
            by_output = load(along.at[head, row, queries], asking)
            by_value = dot(values, of_output, 1, 1)
            shares = functools.reduce(jnp.add, (part.astype(jnp.float32) for part in share))
            of_logits = apart(shares * (by_value - by_output[None, :]))
            of_key, of_value = sums
            return of_key + dot(of_logits, asked, 1, 0), of_value + dot(share, of_output, 1, 0)

        nothing = jnp.zeros((size, width), jnp.float32)
        sums = jax.lax.fori_loop(
            0, full, lambda number, sums: step(number * _TILE, _TILE, _TILE, sums), (nothing, nothing)
        )
        if rest:
            sums = step(last, _tile_for(rest), rest, sums)
        for place, total in zip((_KEY, _VALUE), sums, strict=True):
            store(pulled.at[keys, row, place * heads + head], total.astype(pulled.dtype), rows_of(some, width))

    if full:
        pl.when(tile < full)(lambda: through_queries(tile * _TILE, _TILE, _TILE))
    if rest:
        pl.when(tile == full)(lambda: through_queries(last, _tile_for(rest), rest))


def _pairs_of(keys: jax.Array | None, queries: jax.Array | None, *sizes: int) -> jax.Array | None:
    """A mask [keys, queries] of the pairs that are there."""
    if keys is None and queries is None:
        return None
    of_keys = jnp.ones(sizes[0], bool) if keys is None else keys
    of_queries = jnp.ones(sizes[1], bool) if queries is None else queries
    return of_keys[:, None] & of_queries[None, :]


def _tile_for(count: int) -> int:
    """Tokens in the tile that holds so many."""
    return max(_SMALLEST, power_of_two(count))
