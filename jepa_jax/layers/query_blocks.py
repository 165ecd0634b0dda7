"""Attention over many tokens, a block of queries at a time.

What attention makes of N queries and N keys has N * N entries a head, or dh and R times as many on the way back: for
the 8,192 tokens of a clip, 67 million, and 17 GB for one head. Each query's share of it is its own, so that it can be
done for some queries after others, each with all keys: the cotangents of keys and values then are sums over blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jepa_jax.numerics.products import Products

PAIRS = 2**21
"""Of a query and a key, in one block of a head: more than the 1,370 tokens of 518 pixels make, which are one block."""

Rule = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
"""From a product for what is returned, queries and cotangents of their outputs to those of query, value and key."""


def block_size(queries: int, keys: int) -> int:
    """Queries in a block; the blocks are made equal."""
    blocks = math.ceil(queries / max(1, PAIRS // keys))
    return math.ceil(queries / blocks)


def through_queries(
    rule: Rule, products: Products, query: jax.Array, cotangent: jax.Array, keys: int, axis: int = 0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A rule of attention for all queries.

    Args:
        rule: for some of them; cotangents of their outputs that are zero add nothing to those of keys and values.
        products: with which one block's results are taken. Of several they are summed up unrounded.
        query: queries, along ``axis``.
        cotangent: of their outputs, queries first.
        keys: N.
        axis: of the queries in ``query``.

    Returns:
        Cotangents of query, queries first, and of value and key.
    """
    count = cotangent.shape[0]
    each = block_size(count, keys)
    if each >= count:
        return rule(products, query, cotangent)
    blocks = _cut(query, each, axis), _cut(cotangent, each, 0)

    def step(sums: tuple[jax.Array, jax.Array], block: Any) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        of_query, of_value, of_key = rule(products.summed, *block)
        return (sums[0] + of_value, sums[1] + of_key), products.stored(of_query)

    first = jax.eval_shape(lambda block: rule(products.summed, *block), jax.tree.map(lambda leaf: leaf[0], blocks))
    nothing = jnp.zeros(first[1].shape, first[1].dtype), jnp.zeros(first[2].shape, first[2].dtype)
    (of_value, of_key), of_query = jax.lax.scan(step, nothing, blocks)
    whole = of_query.reshape(-1, *of_query.shape[2:])[:count]
    return whole, products.stored(of_value), products.stored(of_key)


def mixed_by_queries(mix: Callable[[jax.Array], jax.Array], query: jax.Array, keys: int) -> jax.Array:
    """The forward pass: ``mix`` of [B, A, H, dh] queries for any A of them, for all of [B, N, H, dh]."""
    count = query.shape[1]
    each = block_size(count, keys)
    if each >= count:
        return mix(query)
    mixed = jnp.moveaxis(jax.lax.map(mix, _cut(query, each, 1)), 0, 1)
    return mixed.reshape(mixed.shape[0], -1, *mixed.shape[3:])[:, :count]


def _cut(array: jax.Array, each: int, axis: int) -> jax.Array:
    """Blocks in front, filled up with zeros."""
    count = array.shape[axis]
    blocks = math.ceil(count / each)
    filled = jnp.pad(array, [(0, blocks * each - count if i == axis else 0) for i in range(array.ndim)])
    cut = filled.reshape(*array.shape[:axis], blocks, each, *array.shape[axis + 1 :])
    return jnp.moveaxis(cut, axis, 0)
