"""The coarsest numbers that hang on a function's input are found, wherever in it they are."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax.jacobian.arithmetic import coarsest_dtype

WIDE, NARROW = np.dtype("float32"), np.dtype(jnp.bfloat16)


def narrowed(x: jax.Array) -> jax.Array:
    return x.astype(NARROW).astype(WIDE)


def by_turns(x: jax.Array) -> jax.Array:
    """What is narrow hangs on the input from the second turn on."""
    return jax.lax.scan(lambda kept, _: (x, narrowed(kept)), jnp.zeros_like(x), None, length=2)[1]


FUNCTIONS: dict[str, tuple[Callable[[jax.Array], jax.Array], np.dtype]] = {
    "as it came": (jnp.tanh, WIDE),
    "narrow, and wide again": (narrowed, NARROW),
    "narrow at the end": (lambda x: x.astype(NARROW), NARROW),
    "whole numbers": (lambda x: x * jnp.argmax(x).astype(x.dtype), WIDE),
    "a narrow constant": (lambda x: x + jnp.arange(3, dtype=NARROW).astype(x.dtype), WIDE),
    "within a program": (jax.jit(lambda x: jax.nn.relu(narrowed(x))), NARROW),
    "a narrow constant within a program": (jax.jit(lambda x: x + narrowed(jnp.ones(3))), WIDE),
    "a narrow parameter of a program": (lambda x: x + jax.jit(lambda x, w: narrowed(w))(x, jnp.ones(3)), WIDE),
    "computed anew": (jax.checkpoint(lambda x: jnp.sin(narrowed(x))), NARROW),
    "one way of two": (lambda x: jax.lax.cond(x[0, 0] > 0, narrowed, jnp.tanh, x), NARROW),
    "in a loop": (by_turns, NARROW),
    "for each": (lambda x: jax.lax.map(narrowed, x), NARROW),
    "while": (lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 0, narrowed, x), NARROW),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_coarsest_numbers_are_found(name: str):
    function, expected = FUNCTIONS[name]
    assert coarsest_dtype(function, jnp.ones((2, 3))) == expected


def test_float64_that_becomes_float32_is_coarse():
    with jax.enable_x64(True):
        assert coarsest_dtype(lambda x: x.astype(WIDE), jnp.ones((2, 3), jnp.float64)) == WIDE
