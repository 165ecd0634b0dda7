"""What programs for NVIDIA GPUs are written with: Pallas through its Triton backend.

It compiles for every GPU since 2020, runs interpreted on any machine, and reads alike in the versions of JAX that are
supported. Its successor, Mosaic GPU, asks for a GPU of 2022, changed its names between two releases of JAX, and cannot
be interpreted yet. Pallas is loaded where it is used: it takes a quarter of a second, of every start on any platform.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


@functools.cache
def has_triton() -> bool:
    """JAX has announced that it will leave Pallas' Triton backend behind one day."""
    return importlib.util.find_spec("jax.experimental.pallas.triton") is not None


def program(
    step: Callable[..., None],
    grid: tuple[int, ...],
    results: Any,
    *,
    warps: int,
    stages: int,
    interpret: bool,
    aliases: Mapping[int, int] | None = None,
) -> Callable[..., Any]:
    """A program whose steps read from whole arrays, and write into whole ones.

    Args:
        step: of one point of the grid, with references to inputs, in tuples where these are, and results.
        grid: the numbers of steps; those of the first axis run side by side.
        results: shapes and dtypes.
        warps: of 32 threads, in a step.
        stages: steps of a loop whose inputs are on their way at the same time.
        interpret: whether to run on any device, slowly, to see that it is right.
        aliases: inputs, by number, in whose memory a result is written; arrays in tuples count one by one.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plt

    whole = pl.BlockSpec(memory_space=pl.ANY)

    def run(*inputs: Any) -> Any:
        return pl.pallas_call(
            step,
            grid=grid,
            in_specs=jax.tree.map(lambda _: whole, inputs),
            out_specs=jax.tree.map(lambda _: whole, results),
            out_shape=results,
            input_output_aliases=aliases or {},
            compiler_params=None if interpret else plt.CompilerParams(num_warps=warps, num_stages=stages),
            interpret=interpret,
        )(*inputs)

    return run


def load(ref: Any, mask: jax.Array | None) -> jax.Array:
    """Values, and zeros where a mask is not set."""
    from jax.experimental.pallas import triton as plt

    return plt.load(ref, mask=mask, other=None if mask is None else 0.0)


def load_parts(refs: tuple[Any, ...], place: tuple[Any, ...], mask: jax.Array | None) -> Parts:
    """Of each part what lies at a place."""
    return tuple(load(ref.at[place], mask) for ref in refs)


def store(ref: Any, values: jax.Array, mask: jax.Array | None) -> None:
    """Values, where a mask is set."""
    from jax.experimental.pallas import triton as plt

    plt.store(ref, values, mask=mask)


def rows_of(some: jax.Array | None, width: int) -> jax.Array | None:
    """A mask [size, width] of the rows that are there; None if all are."""
    return None if some is None else jnp.broadcast_to(some[:, None], (some.shape[0], width))


Parts = tuple[jax.Array, ...]
"""Of one array, 16-bit arrays that add up to it: the first is its nearest, the next what that leaves."""


def parts_of(values: jax.Array, count: int, dtype: Any) -> Parts:
    """An array as 16-bit numbers, bfloat16 where there are two parts. No cast there and back, which XLA may drop."""
    if count == 1:
        return (values.astype(dtype),)
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    nearest = (bits + jnp.uint32(0x8000)) & jnp.uint32(0xFFFF0000)
    high = jax.lax.bitcast_convert_type(nearest, jnp.float32)
    return high.astype(dtype), (values - high).astype(dtype)


def dot(left: Parts, right: Parts, left_axis: int, right_axis: int) -> jax.Array:
    """A product summed over an axis of each, in float32; the products of 16-bit numbers are exact.

    Of two parts each, that of what both leave is dropped: it is smaller than what is rounded away. Small products come
    first: a tensor core cuts off what it adds beyond a sum's digits, so that a large sum had better grow in few steps.
    """
    contracted = ((left_axis,), (right_axis,)), ((), ())
    multiply = functools.partial(
        jax.lax.dot_general,
        dimension_numbers=contracted,
        precision=jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
    pairs = [(i, j) for i, j in itertools.product(range(len(left)), range(len(right))) if i + j < len(left)]
    return functools.reduce(jnp.add, (multiply(left[i], right[j]) for i, j in reversed(pairs)))


def power_of_two(count: int) -> int:
    """The one at or above."""
    return 1 << (count - 1).bit_length()
