"""The pullback of all heads as one program for TPUs: the logits' cotangents, [N, N] a row and head, stay on the chip.

By XLA alone they are written to memory and read again, 0.6 of the 2.4 GB that attention of a ViT-S block moves. Here a
step of the grid holds some rows of as many heads as fill registers of 128 lanes, two of 64 or eight of 80, and takes
row after row.

The mathematics is that of `jepa_jax.layers.heads`, with P_ij . c_i = A_ij (v_j . c_i - o_i . c_i), and queries like
keys: dq_i = sum_j (P_ij . c_i) k_j. Heads that share lanes are kept apart by zeros: each head's keys, values, queries
and outputs stand in its own lanes among zeros, of the one register or the two that it lies in, so that all products
are of whole registers and no lane is ever moved.

Rows stand before tokens here, which is how a row's tokens make a matrix; elsewhere XLA puts rows last. One cotangent
is turned on the way in, and one on the way out, behind the input projection, which takes the three together.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

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


class _Group(NamedTuple):
    """Heads that fill registers together.

    Attributes:
        heads: how many.
        width: of a head, dh.
    """

    heads: int
    width: int

    @classmethod
    def of(cls, width: int) -> _Group:
        """The smallest one of heads so wide."""
        return cls(LANES // math.gcd(LANES, width), width)

    @property
    def lanes(self) -> int:
        """That all heads fill."""
        return self.heads * self.width

    def registers(self, head: int) -> range:
        """In which a head lies, by number."""
        return range(head * self.width // LANES, -(-(head + 1) * self.width // LANES))

    def is_last(self, head: int, register: int) -> bool:
        """Whether no later head lies in a register."""
        return head == ((register + 1) * LANES - 1) // self.width

    @property
    def window(self) -> int:
        """Lanes of the registers of a head, at most."""
        return LANES * max(len(self.registers(head)) for head in range(self.heads))

    def in_window(self, of_heads: jax.Array, dtype: Any) -> jax.Array:
        """[H, N, dh] to [H, N, window], each head at its place in its registers, and zeros beside it."""
        heads, tokens, width = of_heads.shape
        piece, numbers = math.gcd(LANES, width), jnp.arange(heads)
        pieces = (numbers * width % LANES // piece)[:, None] + jnp.arange(width // piece)
        values = jnp.swapaxes(of_heads.astype(dtype).reshape(heads, tokens, -1, piece), 1, 2)
        places = jnp.zeros((heads, tokens, self.window // piece, piece), dtype)
        return places.at[numbers[:, None], :, pieces].set(values).reshape(heads, tokens, self.window)


def fits(products: Products, queries: int, keys: tuple[int, ...]) -> bool:
    """Whether there is a program for so many queries and for keys [H, N, dh]: 16 bits, N queries, full registers.

    Pruned last blocks go the way of XLA, and so do sequences of which not one row fits.
    """
    heads, tokens, width = keys
    group = _Group.of(width)
    full = width <= LANES and heads % group.heads == 0
    return products.precision in HALF and queries == tokens and full and _step_bytes(group, tokens, 1) <= _CHIP_MEMORY


def _step_bytes(group: _Group, tokens: int, rows: int) -> int:
    """Bytes of the chip's memory that a step takes: its arrays, and the logits of one head with their cotangents.

    Cotangents are there twice: those of the next step are read meanwhile.
    """
    tokens, padded = -(-tokens // 16) * 16, -(-tokens // LANES) * LANES
    cotangents = 2 * 4 * rows * tokens * group.lanes
    of_heads = group.heads * tokens * (padded + 4 * group.window)
    return 2 * (cotangents + of_heads) + 4 * 4 * tokens * padded


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
    group = _Group.of(width)
    whole = (count for count in range(_ROWS, 0, -1) if rows % count == 0)
    at_once = next(count for count in whole if count == 1 or _step_bytes(group, tokens, count) <= _CHIP_MEMORY)

    def of_heads(width: int) -> pl.BlockSpec:
        return pl.BlockSpec((group.heads, tokens, width), lambda head, row: (head, 0, 0), pipeline_mode=pl.Buffered(1))

    compiled = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_CHIP_MEMORY)
    return pl.pallas_call(
        functools.partial(_step, at_once=at_once, group=group),
        grid=(heads // group.heads, rows // at_once),
        in_specs=[
            pl.BlockSpec((at_once, tokens, group.lanes), lambda head, row: (row, 0, head)),
            of_heads(tokens),
            *[of_heads(group.window)] * 4,
        ],
        out_specs=pl.BlockSpec((3, at_once, tokens, group.lanes), lambda head, row: (0, row, 0, head)),
        out_shape=jax.ShapeDtypeStruct((3, rows, tokens, heads * width), cotangent.dtype),
        compiler_params=None if interpret else compiled,
        interpret=pltpu.InterpretParams() if interpret else False,
    )(
        jnp.swapaxes(cotangent, 0, 1).reshape(rows, tokens, -1),
        weights.astype(cotangent.dtype),
        *(group.in_window(each, cotangent.dtype) for each in (query, key, value, output)),
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
    group: _Group,
) -> None:
    """Some rows of a group of heads.

    Args:
        cotangent: of the outputs, [rows, N, lanes].
        weights: A, [heads, N, N].
        query: [heads, N, window], as for the next three.
        key: of the head, zero in the lanes of others.
        value: likewise.
        output: likewise.
        pulled: is written: cotangents of query, value and key, [3, rows, N, lanes].
        at_once: how many rows.
        group: the heads.
    """
    tokens = cotangent.shape[1]

    def of_row(row: jax.Array, carry: None) -> None:
        sums: dict[int, list[jax.Array]] = {}
        for head in range(group.heads):
            for register, parts in zip(group.registers(head), of_head(row, head), strict=True):
                earlier = sums.pop(register, [jnp.zeros((tokens, LANES), jnp.float32)] * len(parts))
                sums[register] = [before + part for before, part in zip(earlier, parts, strict=True)]
                if group.is_last(head, register):
                    for place, part in enumerate(sums.pop(register)):
                        pulled[place, row, :, _lanes_of(register)] = part.astype(pulled.dtype)
        return carry

    def of_head(row: jax.Array, head: int) -> list[tuple[jax.Array, ...]]:
        """What a head adds to the cotangents of query, value and key, by register."""
        registers = group.registers(head)
        first, size = LANES * registers.start, LANES * len(registers)
        of_output = cotangent[row, :, first : first + size]
        asked, keys, values, mixed = (each[head, :, :size] for each in (query, key, value, output))
        along = jnp.sum(of_output.astype(jnp.float32) * mixed.astype(jnp.float32), axis=1, keepdims=True)
        by_value = _dot(of_output, values, 1, 1)
        of_logits = (weights[head].astype(jnp.float32) * (by_value - along)).astype(of_output.dtype)
        lane = first + jax.lax.broadcasted_iota(jnp.int32, of_output.shape, 1)
        own = (lane >= head * group.width) & (lane < (head + 1) * group.width)
        of_value = jnp.where(own, _dot(weights[head], of_output, 0, 0), 0.0)
        whole = _dot(of_logits, keys, 1, 0), of_value, _dot(of_logits, asked, 0, 0)
        return [tuple(part[:, _lanes_of(number)] for part in whole) for number in range(len(registers))]

    jax.lax.fori_loop(0, at_once, of_row, None)


def _lanes_of(register: int) -> slice:
    return slice(register * LANES, (register + 1) * LANES)


def _dot(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """A product summed over an axis of each, in float32.

    The products of 16-bit numbers are exact: no level of precision that the caller may have set has a say in them.
    """
    contracted = ((left_axis,), (right_axis,)), ((), ())
    return jax.lax.dot_general(
        left, right, contracted, precision=jax.lax.Precision.DEFAULT, preferred_element_type=jnp.float32
    )
