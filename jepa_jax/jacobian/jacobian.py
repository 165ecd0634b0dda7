"""The Jacobian of a batch function, example by example, in the cheaper mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.backend_check import require_sound_backend
from jepa_jax.jacobian.forward import forward_jacobian
from jepa_jax.jacobian.reverse import reverse_jacobian

Mode = Literal["auto", "forward", "reverse"]

_MODES = {"forward": forward_jacobian, "reverse": reverse_jacobian}

STEP_ELEMENTS = 2**22
"""Jacobian elements computed together when ``images_per_step`` is not given: enough small examples to fill
a processor, one large one."""


def jacobian(
    fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    mode: Mode = "auto",
    *,
    block_size: int | None = None,
    images_per_step: int | None = None,
) -> jax.Array:
    """Jacobian of a batch function at every example.

    Args:
        fn: function ``[B, *input] -> [B, K]`` that treats examples independently of each other.
        x: batch, [B, *input], floating point.
        mode: ``forward`` pushes every input value forward (`jax.jacfwd`), ``reverse`` pulls every
            output value back in blocks (`jax.vjp`). One costs about as much as the other, so ``auto``
            takes forward where the input is smaller than the output, and reverse for images: 384
            pullbacks instead of 150,528 pushforwards for a ViT-S at 224 pixels.
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
    x = jnp.asarray(x)
    size = output_size(fn, x)
    inputs = math.prod(x.shape[1:])
    chosen = resolve_mode(mode, inputs, size)

    def one(example: jax.Array) -> jax.Array:
        return _MODES[chosen](lambda value: fn(value[None])[0], example, block_size)

    step = images_per_step or default_images_per_step(inputs, size)
    return jax.lax.map(one, x, batch_size=min(step, x.shape[0]))


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


def output_size(fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> int:
    """K of a batch function, after checking that it is one."""
    if x.ndim < 2 or x.shape[0] == 0:
        raise ArgumentError(f"x has shape {x.shape}; it must be a batch [B, ...] with B >= 1.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ArgumentError(f"x has dtype {x.dtype}; a Jacobian needs a floating-point input.")
    output = jax.eval_shape(fn, x)
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != x.shape[0]:
        raise ArgumentError(
            f"fn maps {x.shape} to {shape if shape is not None else type(output).__name__}; "
            f"it must return [{x.shape[0]}, K], one row per example."
        )
    return shape[1]
