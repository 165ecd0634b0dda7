"""The Jacobian of a batch function, example by example, in the cheaper mode."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders import Encoder, EncoderFunction
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.backend_check import require_sound_backend
from jepa_jax.jacobian.forward import forward_jacobian
from jepa_jax.jacobian.reverse import reverse_jacobian
from jepa_jax.jacobian.rules import rules_jacobian

Mode = Literal["auto", "forward", "reverse"]
Engine = Literal["auto", "rules", "generic"]
BatchFunction = Callable[[jax.Array], jax.Array]

_MODES = {"forward": forward_jacobian, "reverse": reverse_jacobian}

STEP_ELEMENTS = 2**22
"""Jacobian elements computed together when ``images_per_step`` is not given: enough small examples to fill
a processor, one large one."""


def jacobian(
    fn: BatchFunction | Encoder,
    x: jax.Array | np.ndarray,
    mode: Mode = "auto",
    *,
    engine: Engine = "auto",
    block_size: int | None = None,
    images_per_step: int | None = None,
) -> jax.Array:
    """Jacobian of a batch function at every example.

    Args:
        fn: an `Encoder`, or any function ``[B, *input] -> [B, K]`` that treats examples independently.
            A function is compiled at every call; call this inside a `jax.jit` of your own to compile it once.
        x: batch, [B, *input], floating point.
        mode: ``forward`` pushes every input value forward (`jax.jacfwd`), ``reverse`` pulls every
            output value back in blocks (`jax.vjp`). One costs about as much as the other, so ``auto``
            takes forward where the input is smaller than the output, and reverse for images: 384
            pullbacks instead of 150,528 pushforwards for a ViT-S at 224 pixels.
        engine: ``rules`` uses the exact layer rules of our encoders (`jepa_jax.jacobian.pullbacks`),
            ``generic`` JAX's own differentiation. ``auto`` takes the rules for an `Encoder`, unless a mode
            is asked for.
        block_size: rows (or columns) in one pass; more is faster until memory or caches are full.
        images_per_step: examples computed side by side; by default as many as fit a fixed number of
            Jacobian elements, so small problems are batched and large ones go one by one.

    Returns:
        [B, K, *input], in the dtype of ``x``.

    Raises:
        ArgumentError: ``x`` or the function's output has an unfit shape or dtype.
        BackendError: the backend computes wrong pullbacks (see `jepa_jax.jacobian.backend_check`).
    """
    require_sound_backend()
    for name, value in (("block_size", block_size), ("images_per_step", images_per_step)):
        if value is not None and value < 1:
            raise ArgumentError(f"{name}={value} must be at least 1.")
    if engine not in get_args(Engine):
        raise ArgumentError(f"engine={engine!r} is unknown; use one of {get_args(Engine)}.")
    x = jnp.asarray(x)
    # "highest": full float32 products. JAX's default is TF32 on NVIDIA GPUs and bfloat16 on TPUs.
    with jax.default_matmul_precision("highest"):
        if isinstance(fn, Encoder):
            return _encoder_jacobian(fn.function, mode, engine, block_size, images_per_step, fn.params, x)
        if engine == "rules":
            raise ArgumentError("engine='rules' knows the layers of an Encoder alone; use 'generic' for a function.")
        one = functools.partial(generic_jacobian, fn, mode=mode, block_size=block_size)
        return _map_examples(one, x, output_size(fn, x), images_per_step)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _encoder_jacobian(
    function: EncoderFunction,
    mode: Mode,
    engine: Engine,
    block_size: int | None,
    images_per_step: int | None,
    params: Any,
    x: jax.Array,
) -> jax.Array:
    params = jax.tree.map(lambda leaf: leaf.astype(x.dtype), params)
    one = functools.partial(one_jacobian, function, params, mode=mode, engine=engine, block_size=block_size)
    return _map_examples(one, x, output_size(functools.partial(function, params), x), images_per_step)


def _map_examples(
    one: Callable[[jax.Array], jax.Array], x: jax.Array, outputs: int, images_per_step: int | None
) -> jax.Array:
    step = images_per_step or default_images_per_step(math.prod(x.shape[1:]), outputs)
    return jax.lax.map(one, x, batch_size=min(step, x.shape[0]))


def one_jacobian(
    function: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    example: jax.Array,
    *,
    mode: Mode,
    engine: Engine,
    block_size: int | None,
) -> jax.Array:
    """Jacobian [K, *input] of a pure function of parameters and a batch, at one example."""
    ours = isinstance(function, EncoderFunction)
    if engine == "rules" and not (ours and mode in ("auto", "reverse")):
        raise ArgumentError("engine='rules' is a reverse mode for our encoders; use engine='generic'.")
    if ours and (engine == "rules" or (engine == "auto" and mode == "auto")):
        return rules_jacobian(function.vit, params, example, block_size)
    return generic_jacobian(functools.partial(function, params), example, mode=mode, block_size=block_size)


def generic_jacobian(
    fn: BatchFunction, example: jax.Array, *, mode: Mode = "auto", block_size: int | None = None
) -> jax.Array:
    """Jacobian [K, *input] of a batch function at one example [*input], by JAX's own differentiation."""
    chosen = resolve_mode(mode, example.size, output_size(fn, example[None]))
    return _MODES[chosen](lambda value: fn(value[None])[0], example, block_size)


def default_images_per_step(inputs: int, outputs: int) -> int:
    """Examples computed side by side, for a Jacobian of ``outputs`` x ``inputs``."""
    return max(1, STEP_ELEMENTS // max(1, inputs * outputs))


def resolve_mode(mode: Mode, inputs: int, outputs: int) -> Literal["forward", "reverse"]:
    """The mode that ``auto`` stands for, by cost."""
    if mode == "auto":
        return "forward" if inputs < outputs else "reverse"
    if mode not in _MODES:
        raise ArgumentError(f"mode={mode!r} is unknown; use 'auto', 'forward' or 'reverse'.")
    return mode


def output_size(fn: BatchFunction, x: jax.Array) -> int:
    """K of a batch function, after checking that it is one."""
    if x.ndim < 2 or x.size == 0:
        raise ArgumentError(f"x has shape {x.shape}; it must be a batch [B, ...] that is not empty.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ArgumentError(f"x has dtype {x.dtype}; a Jacobian needs a floating-point input.")
    output = jax.eval_shape(fn, x)
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != x.shape[0] or shape[1] == 0:
        raise ArgumentError(
            f"fn maps {x.shape} to {shape if shape is not None else type(output).__name__}; "
            f"it must return [{x.shape[0]}, K], one row per example."
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ArgumentError(f"fn returns dtype {output.dtype}; a Jacobian needs a floating-point output.")
    return shape[1]
