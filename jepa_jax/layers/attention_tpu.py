"""The pullback of all heads as one program for TPUs: the logits' cotangents, [N, N] a row and head, stay on the chip.

By XLA alone they are written to memory and read again, 0.6 of the 2.4 GB that attention of a ViT-S block moves. Here a
step of the grid holds some rows of as many heads as fill the 128 lanes of a register, and takes row after row.

The mathematics is that of `jepa_jax.layers.heads`, with P_ij . c_i = A_ij (v_j . c_i - o_i . c_i), and queries like
keys: dq_i = sum_j (P_ij . c_i) k_j. Heads that share lanes are kept apart by zeros: each head's keys, values, queries
and outputs stand in its own lanes among zeros, so that all products are full ones and no lane is ever moved.

Rows stand before tokens here, which is how a row's tokens make a matrix; elsewhere XLA puts rows last. One cotangent
is turned on the way in, and one on the way out, behind the input projection, which takes the three together.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jepa_jax.layers.rotation import Rotation, of_parts
from jepa_jax.layers.rotation import rotate_back as turn_back
from jepa_jax.numerics.products import HALF, Products

LANES = 128
"""Of a TPU's registers: numbers side by side in the last axis."""

_ROWS = 8
"""Of the Jacobian in one step, at most."""

ALIVE: int = 8
"""The cotangents of the outputs, the three results, both turned, and what passes by on the residual connection."""

_CHIP_MEMORY = 64 * 2**20
"""Bytes of the chip's own memory (VMEM) that a step may take: half of what v5e and v6e have."""


def fits(products: Products, queries: int, keys: tuple[int, ...]) -> bool:
    """Whether there is a program for so many queries and for keys [H, N, dh]: 16 bits, N queries, full lanes.

    ViT-H's heads of 80 and pruned last blocks go the way of XLA, and so do sequences whose logits do not fit.
    """
    heads, tokens, width = keys
    shared = LANES % width == 0 and heads % (LANES // width) == 0
    largest = 4 * 4 * tokens * tokens + 2 * LANES // width * tokens * tokens  # logits, their cotangents, and weights
    return products.precision in HALF and queries == tokens and shared and largest <= _CHIP_MEMORY


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
        Cotangents of query, value and key, [3, R, N, d].
    """
    # Where it is used: to load it takes a quarter of a second, of every start on any platform.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    del products  # what is stored tells the level
    tokens, rows, heads, width = cotangent.shape
    query, key, value = residuals
    weights = jax.nn.softmax(query @ jnp.swapaxes(key, -1, -2), axis=-1)
    output = weights @ value
    together = LANES // width
    at_once = next(count for count in range(_ROWS, 0, -1) if rows % count == 0)
    in_lanes = functools.partial(_in_lanes, together=together, dtype=cotangent.dtype)
    of_heads = pl.BlockSpec((together, tokens, LANES), lambda head, row: (head, 0, 0))
    compiled = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_CHIP_MEMORY)
    return pl.pallas_call(
        functools.partial(_step, at_once=at_once, together=together),
        grid=(heads // together, rows // at_once),
        in_specs=[
            pl.BlockSpec((at_once, tokens, LANES), lambda head, row: (row, 0, head)),
            pl.BlockSpec((together, tokens, tokens), lambda head, row: (head, 0, 0)),
            *[of_heads] * 4,
        ],
        out_specs=pl.BlockSpec((3, at_once, tokens, LANES), lambda head, row: (0, row, 0, head)),
        out_shape=jax.ShapeDtypeStruct((3, rows, tokens, heads * width), cotangent.dtype),
        compiler_params=None if interpret else compiled,
        interpret=pltpu.InterpretParams() if interpret else False,
    )(
        jnp.swapaxes(cotangent, 0, 1).reshape(rows, tokens, -1),
        weights.astype(cotangent.dtype),
        *map(in_lanes, (query, key, value, output)),
    )


def rotate_back(products: Products, pulled: jax.Array, rotation: Rotation) -> jax.Array:
    """Turn queries' and keys' cotangents back in what `pullback_heads` has left, by XLA."""
    width = rotation.cosine.shape[-1]
    turns = Rotation(*(turn[:, None, :, None] for turn in of_parts(rotation, 3, axis=0)))
    return turn_back(products, pulled.reshape(*pulled.shape[:-1], -1, width), turns).reshape(pulled.shape)


def to_inputs(inward: jax.Array, pulled: jax.Array, products: Products) -> jax.Array:
    """Through the input projection [d, 3d]: what `pullback_heads` has left, to [N, R, d]."""
    each = jnp.stack(jnp.split(inward, 3, axis=1))
    return jnp.swapaxes(products("xrne,xde->rnd", pulled, each), 0, 1)


def _in_lanes(of_heads: jax.Array, *, together: int, dtype: Any) -> jax.Array:
    """[H, N, dh] to [H, N, 128], each head at its place among those that share the lanes, and zeros beside it."""
    heads, tokens, width = of_heads.shape
    places = jnp.zeros((heads, tokens, together, width), dtype)
    numbers = jnp.arange(heads)
    return places.at[numbers, :, numbers % together].set(of_heads.astype(dtype)).reshape(heads, tokens, LANES)


def _step(
    cotangent: Any,
    weights: Any,
    query: Any,
    key: Any,
    value: Any,
    output: Any,
    pulled: Any,
    *,
    at_once: int,
    together: int,
) -> None:
    """Some rows of the heads that share the lanes.

    Args:
        cotangent: of the outputs, [rows, N, 128].
        weights: A, [heads, N, N].
        query: [heads, N, 128], as for the next three.
        key: of the head, zero in the lanes of others.
        value: likewise.
        output: likewise.
        pulled: is written: cotangents of query, value and key, [3, rows, N, 128].
        at_once: how many rows.
        together: how many heads.
    """

    def of_row(row: jax.Array, carry: None) -> None:
        of_output = cotangent[row]
        wide = of_output.astype(jnp.float32)
        of_query, of_value, of_key = (jnp.zeros(of_output.shape, jnp.float32) for _ in range(3))
        lane = jax.lax.broadcasted_iota(jnp.int32, of_output.shape, 1)
        width = LANES // together
        for head in range(together):
            along = jnp.sum(wide * output[head].astype(jnp.float32), axis=1, keepdims=True)
            by_value = _dot(of_output, value[head], 1, 1)
            of_logits = (weights[head].astype(jnp.float32) * (by_value - along)).astype(of_output.dtype)
            own = (lane >= head * width) & (lane < (head + 1) * width)
            of_query += _dot(of_logits, key[head], 1, 0)
            of_key += _dot(of_logits, query[head], 0, 0)
            of_value += jnp.where(own, _dot(weights[head], of_output, 0, 0), 0.0)
        for place, part in enumerate((of_query, of_value, of_key)):
            pulled[place, row] = part.astype(pulled.dtype)
        return carry

    jax.lax.fori_loop(0, at_once, of_row, None)


def _dot(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """A product summed over an axis of each, in float32.

    The products of 16-bit numbers are exact: no level of precision that the caller may have set has a say in them.
    """
    contracted = ((left_axis,), (right_axis,)), ((), ())
    return jax.lax.dot_general(
        left, right, contracted, precision=jax.lax.Precision.DEFAULT, preferred_element_type=jnp.float32
    )
