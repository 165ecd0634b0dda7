"""The pullback of all heads as two programs for NVIDIA GPUs: the logits' cotangents, [N, N] a row and head, stay in
registers, and the cotangents of query, value and key go into one array, which the input projection takes whole.

The mathematics is that of `jepa_jax.layers.heads`, with P_ij . c_i = A_ij (v_j . c_i - o_i . c_i). One program takes a
tile of keys of one row and head through all queries, and leaves the cotangents of its keys and values. The other
multiplies those of the queries with a covariance, [dh, dh] a query, for many rows at once. Tokens go in tiles of 64
and one for the rest, just as large as it must be: 257 are four tiles and one of 16.

The covariance of keys and values under a query's weights comes as the mean of their products less the product of their
means: so the means of all products of a head are one product, A times the [N, dh dh] products. Keys and values are
centred first, which changes no covariance, and leaves little to cancel.

It is written in Pallas for its Triton backend, which compiles for every GPU since 2020, runs interpreted on any
machine, and reads alike in the versions of JAX that are supported. Its successor, Mosaic GPU, asks for a GPU of 2022,
changed its names between two releases of JAX, and cannot be interpreted yet.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jepa_jax.numerics.products import HALF, Products

_TILE = 64
"""Tokens in a tile; rows of the Jacobian in one of the queries' program are twice as many."""

_SMALLEST = 16
"""Side of the smallest matrix that a tensor core multiplies."""

_LARGEST = 128
"""Width of the widest heads whose tiles stay in registers."""

_QUERY, _VALUE, _KEY = range(3)
"""Their places in the result, as in `jepa_jax.layers.heads.AttentionKernels.inward`."""


def fits(products: Products, queries: int, keys: tuple[int, ...]) -> bool:
    """Whether there is a program for so many queries and for keys [H, N, dh]: 16 bits, N queries, dh a power of two.

    ViT-H's heads of 80 and pruned last blocks go the way of XLA.
    """
    _, tokens, width = keys
    whole_tiles = _SMALLEST <= width == _power_of_two(width) <= _LARGEST
    return products.precision in HALF and queries == tokens and whole_tiles and _has_triton()


@functools.cache
def _has_triton() -> bool:
    """JAX has announced that it will leave Pallas' Triton backend behind one day."""
    return importlib.util.find_spec("jax.experimental.pallas.triton") is not None


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
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plt

    tokens, rows, heads, width = cotangent.shape
    query, key, value = residuals
    weights = jax.nn.softmax(query @ jnp.swapaxes(key, -1, -2), axis=-1)
    output = weights @ value
    mean_key, mean_value, mean_of_both = _moments(products, weights, key, value)
    stored = functools.partial(jnp.asarray, dtype=cotangent.dtype)
    whole = pl.BlockSpec(memory_space=pl.ANY)
    at_once = min(2 * _TILE, _power_of_two(rows))

    def call(
        step: Callable[..., None], grid: tuple[int, ...], inputs: int, aliases: dict[int, int], stages: int
    ) -> Any:
        return pl.pallas_call(
            step,
            grid=grid,
            in_specs=[whole] * inputs,
            out_specs=whole,
            out_shape=jax.ShapeDtypeStruct((tokens, rows, 3 * heads, width), cotangent.dtype),
            input_output_aliases=aliases,
            compiler_params=None if interpret else plt.CompilerParams(num_warps=4, num_stages=stages),
            interpret=interpret,
        )

    of_keys = call(_of_keys_and_values, (pl.cdiv(tokens, _TILE), heads, rows), 5, {}, stages=2)
    of_queries = call(
        functools.partial(_of_queries, at_once), (pl.cdiv(rows, at_once), heads, tokens), 5, {4: 0}, stages=1
    )
    turned = jnp.swapaxes(weights, 1, 2)  # so that a tile of keys is read along its queries
    pulled = of_keys(cotangent, *map(stored, (turned, query, value, output)))
    return of_queries(cotangent, stored(mean_of_both), mean_key, mean_value, pulled)


def _moments(
    products: Products, weights: jax.Array, key: jax.Array, value: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Means under each query's weights: of centred keys and values, [H, N, dh], and of their products, [.., dh, dh]."""
    key, value = (each - jnp.mean(each, axis=1, keepdims=True) for each in (key, value))
    both = key[..., :, None] * value[..., None, :]
    return weights @ key, weights @ value, products("hij,hjfe->hife", weights, both)


def to_inputs(inward: jax.Array, pulled: jax.Array, products: Products) -> jax.Array:
    """Through the input projection [d, 3d]: what `pullback_heads` has left, to [N, R, d]."""
    tokens, rows = pulled.shape[:2]
    return products("nre,de->nrd", pulled.reshape(tokens, rows, -1), inward)


def _of_keys_and_values(cotangent: Any, weights: Any, query: Any, value: Any, output: Any, pulled: Any) -> None:
    """One tile of keys of one head and row, through all queries.

    Args:
        cotangent: of the outputs, [N, R, H, dh].
        weights: A, keys before queries, [H, N, N].
        query: [H, N, dh], as for the next two.
        value: of all tokens.
        output: of all tokens.
        pulled: is written: [N, R, 3H, dh], keys and values.
    """
    from jax.experimental import pallas as pl

    tile, head, row = (pl.program_id(axis) for axis in range(3))
    heads, tokens, width = query.shape
    full, rest = divmod(tokens, _TILE)
    last = full * _TILE + 0 * tile  # not a constant: Pallas refuses a constant slice that ends behind the array

    def through_queries(start: Any, size: int, count: int) -> None:
        """Of so many keys from ``start`` on, the first ``count`` of a tile."""
        keys = pl.ds(start, size)
        some = None if count == size else jnp.arange(size) < count
        values = _load(value.at[head, keys], _rows_of(some, width))

        def step(start: Any, size: int, count: int, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            queries = pl.ds(start, size)
            asking = None if count == size else jnp.arange(size) < count
            rows = _rows_of(asking, width)
            of_output = _load(cotangent.at[queries, row, head], rows)
            outputs, asked = _load(output.at[head, queries], rows), _load(query.at[head, queries], rows)
            share = _load(weights.at[head, keys, queries], _pairs_of(some, asking, values.shape[0], size))
            along = jnp.sum(of_output.astype(jnp.float32) * outputs.astype(jnp.float32), axis=1)
            by_value = _dot(values, of_output, 1, 1)
            of_logits = (share.astype(jnp.float32) * (by_value - along[None, :])).astype(of_output.dtype)
            of_key, of_value = sums
            return of_key + _dot(of_logits, asked, 1, 0), of_value + _dot(share, of_output, 1, 0)

        nothing = jnp.zeros((size, width), jnp.float32)
        sums = jax.lax.fori_loop(
            0, full, lambda number, sums: step(number * _TILE, _TILE, _TILE, sums), (nothing, nothing)
        )
        if rest:
            sums = step(last, _tile_for(rest), rest, sums)
        for place, total in zip((_KEY, _VALUE), sums, strict=True):
            _store(pulled.at[keys, row, place * heads + head], total.astype(pulled.dtype), _rows_of(some, width))

    if full:
        pl.when(tile < full)(lambda: through_queries(tile * _TILE, _TILE, _TILE))
    if rest:
        pl.when(tile == full)(lambda: through_queries(last, _tile_for(rest), rest))


def _of_queries(
    at_once: int, cotangent: Any, mean_of_both: Any, mean_key: Any, mean_value: Any, _: Any, pulled: Any
) -> None:
    """Some rows of one head and query.

    Args:
        at_once: how many rows.
        cotangent: of the outputs, [N, R, H, dh].
        mean_of_both: of the products of centred keys and values, [H, N, dh of keys, dh of values].
        mean_key: [H, N, dh], float32, as for the next.
        mean_value: likewise.
        pulled: is written: [N, R, 3H, dh], queries; the argument before it is the same array.
    """
    from jax.experimental import pallas as pl

    tile, head, token = (pl.program_id(axis) for axis in range(3))
    _, count, heads, width = cotangent.shape
    rows = pl.ds(tile * at_once, at_once)
    mask = None if count % at_once == 0 else _rows_of(tile * at_once + jnp.arange(at_once) < count, width)
    of_output = _load(cotangent.at[token, rows, head], mask)
    along = jnp.sum(of_output.astype(jnp.float32) * mean_value[head, token][None, :], axis=1)
    of_query = _dot(of_output, mean_of_both[head, token], 1, 1) - along[:, None] * mean_key[head, token][None, :]
    _store(pulled.at[token, rows, _QUERY * heads + head], of_query.astype(pulled.dtype), mask)


def _rows_of(some: jax.Array | None, width: int) -> jax.Array | None:
    """A mask [size, width] of the rows that are there."""
    return None if some is None else jnp.broadcast_to(some[:, None], (some.shape[0], width))


def _pairs_of(keys: jax.Array | None, queries: jax.Array | None, *sizes: int) -> jax.Array | None:
    """A mask [keys, queries] of the pairs that are there."""
    if keys is None and queries is None:
        return None
    of_keys = jnp.ones(sizes[0], bool) if keys is None else keys
    of_queries = jnp.ones(sizes[1], bool) if queries is None else queries
    return of_keys[:, None] & of_queries[None, :]


def _load(ref: Any, mask: jax.Array | None) -> jax.Array:
    from jax.experimental.pallas import triton as plt

    return plt.load(ref, mask=mask, other=None if mask is None else 0.0)


def _store(ref: Any, values: jax.Array, mask: jax.Array | None) -> None:
    from jax.experimental.pallas import triton as plt

    plt.store(ref, values, mask=mask)


def _dot(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """A product summed over an axis of each, in float32; the products of 16-bit numbers are exact."""
    contracted = ((left_axis,), (right_axis,)), ((), ())
    return jax.lax.dot_general(
        left, right, contracted, precision=jax.lax.Precision.DEFAULT, preferred_element_type=jnp.float32
    )


def _tile_for(count: int) -> int:
    """Tokens in the tile that holds so many."""
    return max(_SMALLEST, _power_of_two(count))


def _power_of_two(count: int) -> int:
    """The one at or above."""
    return 1 << (count - 1).bit_length()
