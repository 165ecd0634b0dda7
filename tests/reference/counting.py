"""How much arithmetic a program is: the reference for what layers say of their own costs."""

import functools
import math
from typing import Any

import jax
import jax.extend

from jepa_jax.encoders.function import EncoderFunction
from jepa_jax.encoders.parameters import parameter_shapes
from jepa_jax.jacobian.generic import reverse_jacobian
from jepa_jax.jacobian.jacobian import differentials, prepare
from jepa_jax.jacobian.options import JacobianOptions


def multiplications(jaxpr: jax.extend.core.Jaxpr) -> int:
    """Multiplications in the matrix products of a program; a loop's count as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            operand: Any = equation.invars[0].aval
            result: Any = equation.outvars[0].aval
            total += math.prod(result.shape) * math.prod(operand.shape[axis] for axis in contracted)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += equation.params.get("length", 1) * multiplications(inner)
    return total


def counted(function: EncoderFunction, shape: tuple[int, ...], options: JacobianOptions) -> int:
    """Of one image's Jacobians by the layers' pullbacks, without what is prepared once for all images."""
    params = parameter_shapes(function.vit)
    image = jax.ShapeDtypeStruct(shape, jax.numpy.float32)
    kernels = jax.eval_shape(lambda params: prepare(function, params, shape, options, compact=True), params)

    def transposes(params: Any, kernels: Any, image: jax.Array) -> list[jax.Array]:
        return [exit.transpose for exit in differentials(function, params, kernels, image, options)]

    return multiplications(jax.make_jaxpr(transposes)(params, kernels, image).jaxpr)


def counted_naive(function: EncoderFunction, shape: tuple[int, ...]) -> int:
    """The same by one pullback per row."""

    def rows(params: Any, image: jax.Array) -> jax.Array:
        return reverse_jacobian(lambda value: function(params, value[None])[0], image)

    image = jax.ShapeDtypeStruct(shape, jax.numpy.float32)
    return multiplications(jax.make_jaxpr(functools.partial(rows))(parameter_shapes(function.vit), image).jaxpr)
