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

    Small inputs are `jax.jacfwd`. Large ones go through `jax.linearize` once and are pushed forward
    in blocks, so that only ``block_size`` tangents are alive at a time: it runs at any size.

    Args:
        fn: function of one example.
        x: the example, [*input].
        block_size: columns per pass; by default all of a small input, else `DEFAULT_COLUMNS`.

    Returns:
        [K, *input].
    """
    if block_size is None and x.size <= WHOLE_INPUT:
        return jax.jacfwd(fn)(x)
    output, pushforward = jax.linearize(fn, x)

    def column(index: jax.Array) -> jax.Array:
        tangent = jax.nn.one_hot(index, x.size, dtype=x.dtype).reshape(x.shape)
        return pushforward(tangent)

    columns = jax.lax.map(column, jnp.arange(x.size), batch_size=min(block_size or DEFAULT_COLUMNS, x.size))
    return jnp.moveaxis(columns, 0, -1).reshape(math.prod(output.shape), *x.shape)
