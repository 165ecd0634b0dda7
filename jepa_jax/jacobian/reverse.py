"""Reverse mode in blocks of rows: one pullback per output value. The cheap way for images."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

DEFAULT_ROWS = 32
"""Rows per pass. Measured flat between 16 and 64 on CPUs; memory grows with it."""


def reverse_jacobian(fn: Callable[[jax.Array], jax.Array], x: jax.Array, block_size: int | None = None) -> jax.Array:
    """Jacobian of ``fn: [*input] -> [K]`` at one input, by blocks of `jax.vjp` pullbacks.

    The forward pass runs once; `jax.lax.map` then pulls back ``block_size`` rows of the identity at a
    time under `jax.vmap`, so only that many cotangents are alive. This is the reference for every
    faster rule.

    Args:
        fn: function of one example.
        x: the example, [*input].
        block_size: rows per pass.

    Returns:
        [K, *input].
    """
    output, pullback = jax.vjp(fn, x)

    def row(index: jax.Array) -> jax.Array:
        (cotangent,) = pullback(jax.nn.one_hot(index, output.size, dtype=output.dtype))
        return cotangent

    rows = min(block_size or DEFAULT_ROWS, output.size)
    return jax.lax.map(row, jnp.arange(output.size), batch_size=rows)
