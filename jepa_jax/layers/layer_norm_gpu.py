"""The end of a block's two branches on the way back, as one program for NVIDIA GPUs: LayerNorm's rank-one update and
the sum with what passed by on the residual connection, in one passage over rows.

XLA takes a row at a time there, and gets half the rate of the memory.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jepa_jax.numerics.products import Products
from jepa_jax.numerics.triton import has_triton, load, power_of_two, program, rows_of, store

_NUMBERS = 8 * 384
"""In a step: a warp of 32 threads holds them in registers, whatever their width."""

_PIECES = (16, 128)
"""Widths of the pieces of a row that a step reads at once, powers of two: the least, and the largest."""


def fits(products: Products, shape: tuple[int, ...]) -> bool:
    """Whether there is a program for cotangents of a shape: [N, R, d], d in pieces, and not in float64."""
    here = (products.platform, products.kernels) == ("gpu", "auto") and products.precision != "float64"
    return here and len(shape) == 3 and _piece(shape[-1]) >= _PIECES[0] and has_triton()


def _piece(width: int) -> int:
    """The largest power of two that divides a width, if it is not too large."""
    return min(width & -width, _PIECES[1])


def add_pullback(
    cotangent: jax.Array, onto: jax.Array, normalized: jax.Array, factor: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """onto + (v - u (u . v) / d) factor, for what `fits`.

    Args:
        cotangent: v, [N, R, d].
        onto: what it is added to, [N, R, d]; the result takes its place in memory.
        normalized: u, [N, d].
        factor: [N].
        interpret: whether to run on any device, slowly, to see that it is right.

    Returns:
        [N, R, d], stored as ``onto`` is.
    """
    tokens, rows, width = cotangent.shape
    at_once = max(1, power_of_two(_NUMBERS // width + 1) // 2)
    step = program(
        functools.partial(_step, at_once, _piece(width)),
        (-(-rows // at_once), tokens),
        jax.ShapeDtypeStruct(onto.shape, onto.dtype),
        warps=1,
        stages=1,
        interpret=interpret,
        aliases={1: 0},
    )
    return step(cotangent, onto, normalized, factor)


def _step(at_once: int, piece: int, cotangent: Any, onto: Any, normalized: Any, factor: Any, added: Any) -> None:
    """Some rows of one token; see `add_pullback`."""
    from jax.experimental import pallas as pl

    tile, token = pl.program_id(0), pl.program_id(1)
    _, count, width = cotangent.shape
    rows = pl.ds(tile * at_once, at_once)
    some = None if count % at_once == 0 else tile * at_once + jnp.arange(at_once) < count
    mask = rows_of(some, piece)
    pieces = [pl.ds(start, piece) for start in range(0, width, piece)]
    values = [load(cotangent.at[token, rows, part], mask).astype(jnp.float32) for part in pieces]
    units = [normalized[token, part][None, :] for part in pieces]
    shares = [jnp.sum(v * u, axis=1) for v, u in zip(values, units, strict=True)]
    along = functools.reduce(jnp.add, shares)[:, None] / width
    for part, v, u in zip(pieces, values, units, strict=True):
        total = load(onto.at[token, rows, part], mask).astype(jnp.float32) + (v - along * u) * factor[token]
        store(added.at[token, rows, part], total.astype(added.dtype), mask)
