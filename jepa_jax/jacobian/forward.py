"""Forward mode: one pushforward per input value. The cheap way where the input is smaller than the output."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

WHOLE_INPUT = 4096
"""Inputs of at most this many values go through `jax.jacfwd` at once; larger ones in blocks of columns."""

DEFAULT_COLUMNS = 64
"""Columns of a block."""


def forward_jacobian(fn: Callable[[jax.Array], jax.Array], x: jax.Array, block_size: int | None = None) -> jax.Array:
    """Jacobian of ``fn: [*input] -> [K]`` at one input, by forward mode.

    All columns at once are `jax.jacfwd`. Large inputs go through `jax.linearize` once and are pushed forward
    in blocks, so that only ``block_size`` tangents are alive at a time: it runs at any size.

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
