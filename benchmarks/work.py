"""Floating-point work of a program by XLA's own cost analysis, with loops counted as often as they run.

XLA's analysis counts the body of a loop once. Here every loop is found in the program, its body analysed by itself,
and what is missing added: for a loop of n turns, n times the body in full, less the body that is counted already.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

from jepa_jax.encoders import Encoder, EncoderFunction
from jepa_jax.encoders.parameters import parameter_shapes
from jepa_jax.jacobian.jacobian import differential, prepare
from jepa_jax.jacobian.options import JacobianOptions


def flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of one call.

    Args:
        function: to be traced.
        arguments: arrays, or their shapes as `jax.ShapeDtypeStruct`.
    """
    return _in_full(jax.make_jaxpr(function)(*arguments))


def jacobian_flops(encoder: Encoder, image_size: int, options: JacobianOptions | None = None) -> float:
    """Work of one image's Jacobian as we compute it, forward pass included."""
    how = options or JacobianOptions()

    def transpose(params: Any, image: jax.Array) -> jax.Array:
        prepared = prepare(encoder.function, params, image.shape, how, compact=True)
        return differential(encoder.function, params, prepared, image, how).transpose

    return flops(transpose, *_inputs(encoder, image_size))


def naive_flops(encoder: Encoder, image_size: int) -> float:
    """Work of one image's Jacobian as one pullback per row: the forward pass, and K times the pullback."""
    function: EncoderFunction = encoder.function

    def forward(params: Any, image: jax.Array) -> jax.Array:
        return function(params, image[None])[0]

    def with_one_row(params: Any, image: jax.Array) -> jax.Array:
        output, pullback = jax.vjp(functools.partial(forward, params), image)
        return pullback(jnp.ones_like(output))[0]

    inputs = _inputs(encoder, image_size)
    once = flops(forward, *inputs)
    return once + encoder.spec.embedding_size * (flops(with_one_row, *inputs) - once)


def _inputs(encoder: Encoder, image_size: int) -> tuple[Any, jax.ShapeDtypeStruct]:
    image = jax.ShapeDtypeStruct((image_size, image_size, 3), jnp.float32)
    return parameter_shapes(encoder.spec.vit), image


def _in_full(program: jax.extend.core.ClosedJaxpr) -> float:
    total = _counted_once(program)
    for turns, body in _loops(program.jaxpr):
        total += turns * _in_full(body) - _counted_once(body)
    return total


def _counted_once(program: jax.extend.core.ClosedJaxpr) -> float:
    shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in program.in_avals]
    analysis = jax.jit(jax.extend.core.jaxpr_as_fun(program)).lower(*shapes).cost_analysis()
    return float(analysis.get("flops", 0.0)) if analysis else 0.0


def _loops(jaxpr: jax.extend.core.Jaxpr) -> Iterator[tuple[int, jax.extend.core.ClosedJaxpr]]:
    """The loops of a program and of the functions that it calls, but not those within loops."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation.params["length"], equation.params["jaxpr"]
        else:
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from _loops(inner)
