"""Products at ``bfloat16_3x`` as a program for NVIDIA GPUs: two bfloat16 numbers for each of float32.

A tensor core cuts off what it adds to a sum beyond the sum's last digit and does not round (Fasi, Higham, Mikaitis and
Pranesh, Numerical behavior of NVIDIA tensor cores, 2021). The more it adds, the smaller are all results, and all
singular values alike. By cuBLAS, whose sums stay in tensor cores from the first term to the last, that made a ViT-S's
score 0.012 nats too low (measured on an H100): as much as TF32 errs. Here a tensor core adds up no more than `TERMS`
terms of each of the three products, the small ones first, and the ordinary units, which round to nearest, add up that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jepa_jax.numerics.triton import Parts, dot, has_triton, load, load_parts, parts_of, program, rows_of, store

TERMS = 32
"""Of a sum that a tensor core adds up."""

_ROWS = 128
_COLUMNS = 128
"""Of a result, in one step; half as many columns where these do not divide them."""

_WARPS = 8
_STAGES = 3


class Matrices(NamedTuple):
    """A contraction as products of matrices side by side.

    Attributes:
        left: [B, M, K]; or [1, M, K], one for all of the right ones.
        right: in parts [B, K, N], or [B, N, K] where they are `turned`; or one for all of the left ones.
        turned: whether the right ones are.
        shape: of the contraction's result.
    """

    left: jax.Array
    right: Parts
    turned: bool
    shape: tuple[int, ...]


def matrices(formula: str, left: jax.Array, right: jax.Array | Parts) -> Matrices | None:
    """What a contraction multiplies; None where there is no program for it, because an axis would have to be moved, or
    terms and columns do not come in whole tiles.

    Args:
        formula: of `jnp.einsum`.
        left: float32.
        right: float32, or in parts already.
    """
    parts = right if isinstance(right, tuple) else parts_of(right, 2, jnp.bfloat16)
    of_left, of_right, of_result = _axes(formula, left.ndim, parts[0].ndim)
    terms = [axis for axis in of_left if axis in of_right and axis not in of_result]
    rows = [axis for axis in of_result if axis not in of_right]
    if not (terms and rows):
        return None
    # What stands before the rows counts matrices, also where the left one is the same for all.
    beside = of_result[: of_result.index(rows[0])]
    columns = of_result[len(beside) + len(rows) :]
    turned = of_right[-len(terms) :] == terms
    of_matrices = (
        [axis for axis in beside if axis in of_left] + rows + terms,
        beside + (columns + terms if turned else terms + columns),
        beside + rows + columns,
    )
    if (of_left, of_right, of_result) != of_matrices or not columns:
        return None
    sizes = dict(zip(of_left, left.shape, strict=True)) | dict(zip(of_right, parts[0].shape, strict=True))
    many, height, depth, width = (math.prod(sizes[axis] for axis in axes) for axes in (beside, rows, terms, columns))
    if depth % TERMS or width % (_COLUMNS // 2) or not has_triton():
        return None
    shared = len(of_left) == len(rows) + len(terms)
    return Matrices(
        left.reshape(1 if shared else many, height, depth),
        tuple(part.reshape(many, *((width, depth) if turned else (depth, width))) for part in parts),
        turned,
        tuple(sizes[axis] for axis in of_result),
    )


def _axes(formula: str, *ranks: int) -> list[list[str]]:
    """The axes of both operands and of the result; those that ``...`` stands for have numbers."""
    operands, result = formula.split("->")
    each = [*operands.split(","), result]
    more = max(rank - len(axes.replace("...", "")) for axes, rank in zip(each[:2], ranks, strict=True))
    return [[*map(str, range(more if "..." in axes else 0)), *axes.replace("...", "")] for axes in each]


def multiply(operands: Matrices, *, interpret: bool = False) -> jax.Array:
    """The contraction, in float32.

    Args:
        operands: of `matrices`.
        interpret: whether to run on any device, slowly, to see that it is right.
    """
    product = _product(operands.turned, interpret)
    return product(operands.left, operands.right).reshape(operands.shape)


def _product(turned: bool, interpret: bool) -> Callable[[jax.Array, Parts], jax.Array]:
    """[B, M, N] from `Matrices`. Mapped over images, these become more rows of one left matrix, or more matrices."""

    @jax.custom_batching.custom_vmap
    def product(left: jax.Array, right: Parts) -> jax.Array:
        return _by_program(left, right, turned, interpret)

    @product.def_vmap
    def of_images(images: int, mapped: Any, left: jax.Array, right: Parts) -> tuple[jax.Array, bool]:
        left_mapped, (right_mapped, _) = mapped
        many = max(left.shape[left_mapped], right[0].shape[right_mapped])
        if not right_mapped and many == 1:
            found = product(left.reshape(1, -1, left.shape[-1]), right)
            return found.reshape(images, 1, -1, found.shape[-1]), True

        def side_by_side(values: jax.Array, is_mapped: bool) -> jax.Array:
            if not is_mapped and len(values) == 1:
                return values
            shape = images, many, *values.shape[-2:]
            return jnp.broadcast_to(values, shape).reshape(images * many, *values.shape[-2:])

        found = product(side_by_side(left, left_mapped), tuple(side_by_side(part, right_mapped) for part in right))
        return found.reshape(images, many, *found.shape[1:]), True

    return product


def _by_program(left: jax.Array, right: Parts, turned: bool, interpret: bool) -> jax.Array:
    many, height, width = max(len(left), len(right[0])), left.shape[1], right[0].shape[1 if turned else 2]
    columns = _COLUMNS if width % _COLUMNS == 0 else _COLUMNS // 2
    # Of two operands the larger is read once, and the other again and again, from the cache.
    downwards = right[0].size > left.size
    run = program(
        functools.partial(_tile, columns, turned, downwards),
        (many * -(-height // _ROWS) * (width // columns),),
        jax.ShapeDtypeStruct((many, height, width), jnp.float32),
        warps=_WARPS,
        stages=_STAGES,
        interpret=interpret,
    )
    return run(left, right)


def _tile(columns: int, turned: bool, downwards: bool, left: Any, right: Any, result: Any) -> None:
    """One tile of a result.

    Args:
        columns: how many it has.
        turned: whether the right matrices are [N, K].
        downwards: whether the next step takes the tile below this one, or the one beside it.
        left: [B or 1, M, K], float32.
        right: [B or 1, K, N], in parts.
        result: [B, M, N], is written.
    """
    from jax.experimental import pallas as pl

    _, height, width = result.shape
    down, across = -(-height // _ROWS), width // columns
    which, tile = pl.program_id(0) // (down * across), pl.program_id(0) % (down * across)
    row, column = (tile % down, tile // down) if downwards else (tile // across, tile % across)
    rows, here = pl.ds(row * _ROWS, _ROWS), pl.ds(column * columns, columns)
    some = None if height % _ROWS == 0 else row * _ROWS + jnp.arange(_ROWS) < height
    # Not a constant where there is one for all: Pallas has no interpreter for that.
    of_left, of_right = (which * min(1, operand.shape[0] - 1) for operand in (left, right[0]))

    def add(number: Any, total: jax.Array) -> jax.Array:
        terms = pl.ds(number * TERMS, TERMS)
        by_rows = parts_of(load(left.at[of_left, rows, terms], rows_of(some, TERMS)), 2, jnp.bfloat16)
        by_columns = load_parts(right, (of_right, here, terms) if turned else (of_right, terms, here), None)
        return total + dot(by_rows, by_columns, 1, 1 if turned else 0)

    nothing = jnp.zeros((_ROWS, columns), jnp.float32)
    total = jax.lax.fori_loop(0, left.shape[-1] // TERMS, add, nothing)
    store(result.at[which, rows, here], total, rows_of(some, columns))
