"""How much arithmetic a Jacobian is: multiplications in the matrix products of the program that computes it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend

from jepa_jax.jacobian.jacobian import spectral_columns
from jepa_jax.jacobian.plan import JacobianPlan
from jepa_jax.jacobian.reverse import reverse_jacobian


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


def planned_multiplications(function: Callable[..., jax.Array], params: Any, image: Any, plan: JacobianPlan) -> int:
    """Of one image's Jacobian as a plan computes it; nothing is run.

    Args:
        function: ``(params, [B, *input]) -> [B, K]``.
        params: its parameters or their shapes.
        image: [*input], or its shape.
        plan: how.
    """
    way = functools.partial(spectral_columns, function, plan=plan)
    return multiplications(jax.make_jaxpr(way)(params, image).jaxpr)


def naive_multiplications(function: Callable[..., jax.Array], params: Any, image: Any) -> int:
    """The same by one pullback per row; see `planned_multiplications`."""

    def rows(params: Any, image: jax.Array) -> jax.Array:
        return reverse_jacobian(lambda value: function(params, value[None])[0], image)

    return multiplications(jax.make_jaxpr(rows)(params, image).jaxpr)
