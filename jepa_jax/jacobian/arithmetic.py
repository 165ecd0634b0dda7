"""In which numbers a function computes: what it rounds itself, no level of precision can know.

A module that casts to bfloat16 has a Jacobian of three digits, whatever its parameters and its output are stored in,
and whatever precision is asked for. Its values are looked through for the coarsest numbers that hang on the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var


def coarsest_dtype(fn: Callable[[jax.Array], jax.Array], x: jax.Array | jax.ShapeDtypeStruct) -> np.dtype:
    """Of all floating-point numbers in a function that hang on its input: the dtype with the fewest digits.

    Args:
        fn: of a batch, or of one example; it is traced, and not run.
        x: its input, floating point. The result is at most as fine.
    """
    traced = jax.make_jaxpr(fn)(x).jaxpr
    return max((x.dtype, *_dtypes(traced, set(traced.invars))), key=lambda dtype: float(jnp.finfo(dtype).eps))


def _dtypes(jaxpr: Jaxpr, hanging: set[Var]) -> Iterator[np.dtype]:
    """Of the floating-point values that hang on some variables; these grow by what is found to hang on them."""
    for equation in jaxpr.eqns:
        inputs = [not isinstance(value, Literal) and value in hanging for value in equation.invars]
        if not any(inputs):
            continue
        hanging.update(equation.outvars)
        dtypes = (getattr(value.aval, "dtype", None) for value in equation.outvars)
        yield from (dtype for dtype in dtypes if dtype is not None and jnp.issubdtype(dtype, jnp.floating))
        for inner in _within(equation):
            yield from _dtypes(inner, set(_entering(inner, equation, inputs)))


def _entering(inner: Jaxpr, equation: JaxprEqn, inputs: Sequence[bool]) -> Iterable[Var]:
    """The variables of a program within an equation that hang on the input."""
    if len(inner.invars) != len(inputs) or equation.primitive.name == "scan":
        return inner.invars  # of a loop, any may by the second turn
    return (value for value, hangs in zip(inner.invars, inputs, strict=True) if hangs)


def _within(equation: JaxprEqn) -> Iterator[Jaxpr]:
    for value in equation.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, ClosedJaxpr | Jaxpr):
                yield each.jaxpr if isinstance(each, ClosedJaxpr) else each
