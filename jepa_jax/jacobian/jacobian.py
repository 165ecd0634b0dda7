"""The Jacobian of a batch function, example by example, in the cheaper mode."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders import Encoder, EncoderFunction
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.backend_check import require_sound_backend
from jepa_jax.jacobian.forward import forward_jacobian
from jepa_jax.jacobian.plan import Engine, JacobianPlan, Mode
from jepa_jax.jacobian.precision import Precision
from jepa_jax.jacobian.reverse import reverse_jacobian
from jepa_jax.jacobian.rules import columns_to_jacobian, rules_columns

BatchFunction = Callable[[jax.Array], jax.Array]


def jacobian(
    fn: BatchFunction | Encoder,
    x: jax.Array | np.ndarray,
    mode: Mode = "auto",
    *,
    engine: Engine = "auto",
    precision: Precision | None = None,
    block_size: int | None = None,
    images_per_step: int | None = None,
) -> jax.Array:
    """Jacobian of a batch function at every example.

    Args:
        fn: an `Encoder`, or any function ``[B, *input] -> [B, K]`` that treats examples independently.
            A function is compiled at every call; call this inside a `jax.jit` of your own to compile it once.
        x: batch, [B, *input], floating point.
        mode: ``forward``, ``reverse`` or ``auto``; see `jepa_jax.jacobian.plan.JacobianPlan` for this and the next.
        engine: ``rules``, ``generic`` or ``auto``.
        precision: of the pullbacks' products; by default the dtype of ``x``. The rungs below ``float32``
            (``bfloat16``, ``tensorfloat32``, ``bfloat16_3x``) take a float32 ``x`` and an `Encoder`.
        block_size: rows (or columns) in one pass.
        images_per_step: examples computed side by side.

    Returns:
        [B, K, *input], in the dtype of ``x``.

    Raises:
        ArgumentError: ``x`` or the function's output has an unfit shape or dtype.
        BackendError: the backend computes wrong pullbacks (see `jepa_jax.jacobian.backend_check`).
    """
    require_sound_backend()
    x = jnp.asarray(x)
    own = "float64" if x.dtype == jnp.float64 else "float32"
    if precision is not None and (precision == "float64") != (own == "float64"):
        raise ArgumentError(f"precision={precision!r} does not fit x of dtype {x.dtype}; cast x.")
    plan = JacobianPlan(mode, engine, precision or own, block_size, images_per_step)
    # "highest": full float32 products. JAX's default is TF32 on NVIDIA GPUs and bfloat16 on TPUs.
    with jax.default_matmul_precision("highest"):
        if isinstance(fn, Encoder):
            return _encoder_jacobian(fn.function, plan, fn.params, x)
        plan.uses_rules(ours=False)
        one = functools.partial(generic_jacobian, fn, plan=plan)
        return jax.lax.map(one, x, batch_size=plan.step(math.prod(x.shape[1:]), output_size(fn, x), x.shape[0]))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encoder_jacobian(function: EncoderFunction, plan: JacobianPlan, params: Any, x: jax.Array) -> jax.Array:
    params = jax.tree.map(lambda leaf: leaf.astype(x.dtype), params)
    outputs = output_size(functools.partial(function, params), x)

    def one(image: jax.Array) -> jax.Array:
        if plan.uses_rules(ours=True):
            columns = rules_columns(function.vit, params, image, block_size=plan.block_size, precision=plan.precision)
            return columns_to_jacobian(function.vit, columns, image.shape)
        return generic_jacobian(functools.partial(function, params), image, plan=plan)

    return jax.lax.map(one, x, batch_size=plan.step(math.prod(x.shape[1:]), outputs, x.shape[0]))


def spectral_columns(
    function: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    example: jax.Array,
    plan: JacobianPlan,
    rows: jax.Array | None = None,
) -> jax.Array:
    """J^T of a pure function of parameters and a batch at one example, up to an isometry of the input.

    Args:
        function: ``(params, [B, *input]) -> [B, K]``.
        params: its parameters.
        example: [*input].
        plan: how.
        rows: which rows of J, [R], in reverse mode; by default all. A number outside 0 .. K - 1 gives zeros.

    Returns:
        [D, R]: the singular values are those of these rows of J.
    """
    if plan.uses_rules(isinstance(function, EncoderFunction)):
        assert isinstance(function, EncoderFunction)
        columns = rules_columns(
            function.vit,
            params,
            example,
            rows=rows,
            block_size=plan.block_size,
            precision=plan.precision,
            compact=True,
        )
        return columns.reshape(-1, columns.shape[-1])
    matrix = generic_jacobian(functools.partial(function, params), example, plan=plan, rows=rows)
    return matrix.reshape(matrix.shape[0], -1).T


def generic_jacobian(
    fn: BatchFunction, example: jax.Array, *, plan: JacobianPlan, rows: jax.Array | None = None
) -> jax.Array:
    """Jacobian [K, *input], or some rows of it, of a batch function at one example, by JAX's own differentiation."""

    def single(value: jax.Array) -> jax.Array:
        return fn(value[None])[0]

    outputs = output_size(fn, example[None])
    if rows is None and plan.forward_mode(example.size, outputs):
        return forward_jacobian(single, example, plan.block_size)
    if plan.mode == "forward":
        raise ArgumentError("mode='forward' has no rows to share among devices; use a mesh with one device on 'rows'.")
    return reverse_jacobian(single, example, plan.block_size, rows)


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
