"""The Jacobian of a batch function, example by example, in the cheaper mode."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian import fold, sweep
from jepa_jax.jacobian.backend_check import require_sound_backend
from jepa_jax.jacobian.function import (
    AnyEncoder,
    Differentiable,
    OpaqueFunction,
    output_size,
    parameters_in,
    pure_function,
)
from jepa_jax.jacobian.generic import forward_jacobian, reverse_jacobian
from jepa_jax.jacobian.options import Engine, JacobianOptions, Mode
from jepa_jax.layers import SCHEDULES
from jepa_jax.numerics.compiler import compiler_options
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import Precision


def jacobian(
    fn: AnyEncoder,
    x: jax.Array | np.ndarray,
    mode: Mode = "auto",
    *,
    engine: Engine = "auto",
    precision: Precision | None = None,
    **options: Any,
) -> jax.Array:
    """Jacobian of a batch function at every example.

    Args:
        fn: an `Encoder`, an `OwnEncoder`, or any function ``[B, *input] -> [B, K]`` that treats examples
            independently. A function is compiled at every call; call this inside a `jax.jit` of your own to compile it
            once.
        x: batch, ``[B, *input]``, floating point.
        mode: ``forward``, ``reverse`` or ``auto``; see `JacobianOptions`, as for the next.
        engine: ``rules``, ``generic`` or ``auto``.
        precision: of the pullbacks' products; by default the dtype of ``x``. The levels below ``float32``
            (``bfloat16``, ``float16``, ``tensorfloat32``, ``bfloat16_3x``) take a float32 ``x`` and an `Encoder`.
        options: the other fields of `JacobianOptions`.

    Returns:
        ``[B, K, *input]``, in the dtype of ``x``; of a NumPy array in float64, float32 where JAX's float64 is off.

    Raises:
        ArgumentError: ``x`` or the function's output has an invalid shape or dtype, or an option does not fit.
        BackendError: the backend computes wrong pullbacks (see `jepa_jax.jacobian.backend_check`).
    """
    function, params = pure_function(fn)
    x = jnp.asarray(x)
    own = "float64" if x.dtype == jnp.float64 else "float32"
    if precision == "float64" and not jax.config.read("jax_enable_x64"):
        raise ArgumentError("precision='float64' needs JAX's float64: call jacobian under jax.enable_x64(True).")
    if precision is not None and (precision == "float64") != (own == "float64"):
        raise ArgumentError(f"precision={precision!r} does not fit x of dtype {x.dtype}; cast x.")
    chosen = JacobianOptions(mode, engine, precision or own, **options)
    require_sound_backend(chosen, function.vit)
    # "highest": full float32 products. JAX's default is TF32 on NVIDIA GPUs and bfloat16 on TPUs.
    with jax.default_matmul_precision("highest"):
        if not function.layered:
            return _jacobians(function, chosen, params, x)
        # Within a program of the caller's, the caller's own word to the compiler holds.
        within = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((params, x)))
        run = _compiled() if within else _compiled(chosen.platform)
        return run(function, chosen, params, x)


def _jacobians(function: Differentiable, options: JacobianOptions, params: Any, x: jax.Array) -> jax.Array:
    params = parameters_in(params, x.dtype)
    outputs = output_size(functools.partial(function, params), x)
    prepared = prepare(function, params, x.shape[1:], options, compact=False)
    one = functools.partial(jacobian_rows, function, params, prepared, options=options)
    return jax.lax.map(one, x, batch_size=options.step(math.prod(x.shape[1:]), outputs, x.shape[0]))


@functools.cache
def _compiled(platform: Platform = "cpu") -> Callable[..., jax.Array]:
    """`_jacobians` as one program."""
    return jax.jit(_jacobians, static_argnums=(0, 1), compiler_options=compiler_options(platform) or None)


def prepare(
    function: Differentiable, params: Any, shape: tuple[int, ...], options: JacobianOptions, *, compact: bool
) -> fold.Kernels:
    """What the layers' pullbacks need of the parameters alone, for examples of a shape; once for all of them.

    Args:
        function: what is differentiated.
        params: its parameters.
        shape: of an example, [*input].
        options: how.
        compact: whether rows may be shortened by an isometry of the input, for `differential`.
    """
    if not options.uses_rules(function.layered):
        return ()
    if compact and function.exit_numbers:
        return sweep.prepare(function.exits(params, shape, options.chosen_schedule), options.products)
    layers = function.layers(params, shape, options.chosen_schedule)
    return fold.prepare(layers, options.products, compact=compact)


class Differential(NamedTuple):
    """A function near one example: its value there, and its Jacobian as far as a spectrum needs it.

    Attributes:
        embedding: [K].
        null_directions: of the Jacobian, [K, m]; m = 0 where nothing is known.
        transpose: J^T up to an isometry of the input, [D, R]: the singular values are those of its R rows.
    """

    embedding: jax.Array
    null_directions: jax.Array
    transpose: jax.Array


def differential(
    function: Differentiable,
    params: Any,
    prepared: fold.Kernels,
    example: jax.Array,
    options: JacobianOptions,
    rows: jax.Array | None = None,
) -> Differential:
    """J^T of a function at one example, up to an isometry of the input, and the embedding there.

    Args:
        function: what is differentiated.
        params: its parameters.
        prepared: what `prepare` returned, compact.
        example: [*input].
        options: how.
        rows: which rows of J, [R], in reverse mode; by default all. A number outside 0 .. K - 1 gives zeros.
    """
    if not options.uses_rules(function.layered):
        matrix = _generic(function, params, example, options, rows)
        embedding, nulls = embed_with_nulls(function, params, example)
        return Differential(embedding, nulls, matrix.reshape(matrix.shape[0], -1).T)
    layers = function.layers(params, example.shape, options.chosen_schedule)
    there = fold.linearize(layers, example)
    transpose = fold.jacobian_transpose(
        layers,
        prepared,
        there,
        options.products,
        options.chosen_schedule,
        rows=rows,
        block_size=options.block_size,
    )
    return Differential(there.embedding, there.null_directions, transpose.reshape(-1, transpose.shape[-1]))


def differentials(
    function: Differentiable,
    params: Any,
    prepared: fold.Kernels,
    example: jax.Array,
    options: JacobianOptions,
    rows: Sequence[jax.Array] | None = None,
) -> list[Differential]:
    """`differential` of each of a function's layers that are asked for, in their order, and of the function itself.

    Args:
        function: what is differentiated.
        params: its parameters.
        prepared: what `prepare` returned, compact.
        example: [*input].
        options: how.
        rows: which rows of each Jacobian, as for `differential`.
    """
    cuts = [*(function.cut(params, number) for number in function.exit_numbers), (function, params)]
    if not function.exit_numbers or not options.uses_rules(function.layered):
        each: Sequence[jax.Array | None] = [None] * len(cuts) if rows is None else rows
        return [
            differential(one, of_one, prepared, example, options, some)
            for (one, of_one), some in zip(cuts, each, strict=True)
        ]
    schedule, products = options.chosen_schedule, options.products
    exits = function.exits(params, example.shape, schedule)
    there = sweep.linearize(exits, example)
    transposes = sweep.jacobian_transposes(
        exits,
        prepared,
        there,
        products,
        schedule,
        rows=rows or [jnp.arange(one.embedding.size) for one in there],
        block_size=options.block_size,
    )
    return [
        Differential(one.embedding, one.null_directions, transpose.reshape(-1, transpose.shape[-1]))
        for one, transpose in zip(there, transposes, strict=True)
    ]


def jacobian_rows(
    function: Differentiable, params: Any, prepared: fold.Kernels, example: jax.Array, *, options: JacobianOptions
) -> jax.Array:
    """The Jacobian [K, *input] of a function at one example; ``prepared`` is not compact."""
    if not options.uses_rules(function.layered):
        return _generic(function, params, example, options)
    layers = function.layers(params, example.shape, options.chosen_schedule)
    there = fold.linearize(layers, example)
    transpose = fold.jacobian_transpose(
        layers, prepared, there, options.products, options.chosen_schedule, block_size=options.block_size
    )
    return fold.entry_layer(layers).to_input(transpose, example.shape)


def embed_with_nulls(function: Differentiable, params: Any, example: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Embedding [K] of one example, and the structural null directions [K, m] of the Jacobian there; in its dtype."""
    if isinstance(function, OpaqueFunction):
        embedding = function(params, example[None])[0].astype(example.dtype)
        return embedding, function.null_directions(params, embedding)
    there = fold.linearize(function.layers(params, example.shape, SCHEDULES["looped"]), example)
    return there.embedding, there.null_directions


def _generic(
    function: Differentiable,
    params: Any,
    example: jax.Array,
    options: JacobianOptions,
    rows: jax.Array | None = None,
) -> jax.Array:
    """Jacobian [K, *input], or some rows of it, by JAX's own differentiation; in the example's dtype."""

    def single(value: jax.Array) -> jax.Array:
        return function(params, value[None])[0].astype(example.dtype)

    outputs = output_size(functools.partial(function, params), example[None])
    if rows is None and options.forward_mode(example.size, outputs):
        return forward_jacobian(single, example, options.block_size)
    if options.mode == "forward":
        raise ArgumentError("mode='forward' has no rows to share among devices; use a mesh with one device on 'rows'.")
    return reverse_jacobian(single, example, options.block_size, rows)
