"""The Jacobian of any JAX function at one example, by JAX's own differentiation: the reference for every faster rule.

Reverse mode is one pullback per output value, forward mode one pushforward per input value; each costs about as much
as the other, so the smaller side decides. Both go in blocks, so that only so many (co)tangents are alive at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

DEFAULT_ROWS = 32
"""Rows per pass. Measured flat between 16 and 64 on CPUs; memory grows with it."""

WHOLE_INPUT = 4096
"""Inputs of at most this many values go through `jax.jacfwd` at once; larger ones in blocks of columns."""

DEFAULT_COLUMNS = 64
"""Columns of a block."""


def reverse_jacobian(
    fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    block_size: int | None = None,
    rows: jax.Array | None = None,
) -> jax.Array:
    """Jacobian of ``fn: [*input] -> [K]`` at one input, by blocks of `jax.vjp` pullbacks.

    The forward pass runs once; `jax.lax.map` then pulls back ``block_size`` rows of the identity at a
    time under `jax.vmap`.

    Args:
        fn: function of one example.
        x: the example, [*input].
        block_size: rows per pass.
        rows: which rows, [R]; by default all. A number outside 0 .. K - 1 gives a row of zeros.

    Returns:
        [R, *input].
    """
    output, pullback = jax.vjp(fn, x)
    rows = jnp.arange(output.size) if rows is None else rows

    def row(index: jax.Array) -> jax.Array:
        (cotangent,) = pullback(jax.nn.one_hot(index, output.size, dtype=output.dtype))
        return cotangent

    return jax.lax.map(row, rows, batch_size=rows_per_pass(rows.size, block_size))


def rows_per_pass(rows: int, block_size: int | None) -> int:
    """How many of ``rows`` are pulled back together, if ``block_size`` are asked for."""
    return min(block_size or DEFAULT_ROWS, rows)


def forward_jacobian(fn: Callable[[jax.Array], jax.Array], x: jax.Array, block_size: int | None = None) -> jax.Array:
    """Jacobian of ``fn: [*input] -> [K]`` at one input, by forward mode.

    All columns at once are `jax.jacfwd`. Large inputs go through `jax.linearize` once and are pushed forward
    in blocks: it runs at any size.

    Args:
        fn: function of one example.
        x: the example, [*input].
        block_size: columns per pass; by default all of a small input, else `DEFAULT_COLUMNS`.

    Returns:
        [K, *input].
    """
    columns = columns_per_pass(x.size, block_size)
    if columns == x.size:
        return jax.jacfwd(fn)(x)
    output, pushforward = jax.linearize(fn, x)

    def column(index: jax.Array) -> jax.Array:
        tangent = jax.nn.one_hot(index, x.size, dtype=x.dtype).reshape(x.shape)
        return pushforward(tangent)

    found = jax.lax.map(column, jnp.arange(x.size), batch_size=columns)
    return jnp.moveaxis(found, 0, -1).reshape(math.prod(output.shape), *x.shape)


def columns_per_pass(inputs: int, block_size: int | None) -> int:
    """How many of ``inputs`` columns are computed together, if ``block_size`` are asked for."""
    return min(block_size or (inputs if inputs <= WHOLE_INPUT else DEFAULT_COLUMNS), inputs)
