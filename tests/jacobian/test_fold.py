"""The fold over layers against JAX's own differentiation: whole encoders of every make."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from makes import MAKES, PLAIN, TOLERANCE, loud_params, relative

import jepa_jax as jj
from jepa_jax.encoders import Encoder, EncoderFunction, EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.jacobian.jacobian import jacobian_rows, prepare
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.precision import NOISE, Precision
from jepa_jax.numerics.products import HALF


def jacobian_of_layers(spec: ViTSpec, params: dict, image: jax.Array, **how: Any) -> jax.Array:
    function, options = EncoderFunction(spec), JacobianOptions(engine="rules", **how)
    prepared = prepare(function, params, image.shape, options, compact=False)
    return jacobian_rows(function, params, prepared, image, options=options)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("make", MAKES)
def test_the_fold_equals_jax(make: str, dtype: str):
    spec = MAKES[make]
    with jax.enable_x64(dtype == "float64"):
        params = loud_params(spec, dtype)
        image = jnp.asarray(np.random.default_rng(2).standard_normal((12, 20, 3)), dtype)
        function = EncoderFunction(spec)
        expected = jax.jit(jax.jacrev(lambda value: function(params, value[None])[0]))(image)
        for schedule, block_size in (("looped", None), ("looped", 5), ("batched", None), ("batched", 5)):
            how = {"precision": dtype, "schedule": schedule, "block_size": block_size}
            found = jax.jit(functools.partial(jacobian_of_layers, spec, **how))(params, image)
            assert found.shape == (spec.embedding_size, 12, 20, 3)
            assert found.dtype == dtype
            assert relative(found, expected) <= TOLERANCE[dtype]
        if dtype == "float64":
            check_along_a_direction(lambda value: function(params, value), image, found)


@pytest.mark.parametrize("level", HALF)
@pytest.mark.parametrize("make", ["class token", "patch mean"])
def test_sixteen_bits_are_as_exact_as_they_say(make: str, level: Precision):
    """As an accelerator stores them, which a CPU can as well, if slowly; and as a CPU emulates that, both ways round.

    The other of the two levels lies a factor of eight away.
    """
    spec = MAKES[make]
    params = loud_params(spec, "float32")
    image = jnp.asarray(np.random.default_rng(2).standard_normal((12, 20, 3)), jnp.float32)
    expected = jax.jit(functools.partial(jacobian_of_layers, spec))(params, image)
    for platform, schedule in (("gpu", "batched"), ("cpu", "batched"), ("cpu", "looped")):
        how = {"precision": level, "platform": platform, "schedule": schedule}
        found = jax.jit(functools.partial(jacobian_of_layers, spec, **how))(params, image)
        assert found.dtype == jnp.float32
        assert NOISE[level] / 3 <= relative(found, expected) <= 2.5 * NOISE[level]


def check_along_a_direction(fn: Callable[[jax.Array], jax.Array], image: jax.Array, jacobian: jax.Array) -> None:
    """A Jacobian times a unit direction, against forward mode and differences of eighth order.

    With a step of h = 0.02 of a direction that changes each of some hundred pixels by a tenth of that, the
    differences are off by h^8 / 630 of a ninth derivative, and by rounding units over h: both below 1e-12.
    """
    direction = jnp.asarray(np.random.default_rng(3).standard_normal(image.shape))
    direction = direction / jnp.linalg.norm(direction)
    found = jnp.tensordot(jacobian, direction, image.ndim)
    forward = jax.jit(lambda value: jax.jvp(lambda v: fn(v[None])[0], (value,), (direction,))[1])(image)
    assert relative(found, forward) <= TOLERANCE["float64"]
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    step = 0.02
    shifts = jnp.array([*weights, *(-k for k in weights)], image.dtype) * step
    values = jax.jit(fn)(image + shifts[:, None, None, None] * direction)
    differences = jnp.tensordot(jnp.array([*weights.values()]), values[:4] - values[4:], 1) / step
    assert relative(found, differences) <= TOLERANCE["float64"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(EncoderSpec("tiny", "dinov2", PLAIN, PreprocessSpec(18, 16)), loud_params(PLAIN, "float32"))


def test_an_encoder_goes_by_the_rules_unless_told_otherwise(encoder: Encoder):
    batch = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    default = np.asarray(jj.jacobian(encoder, batch))
    rules = np.asarray(jj.jacobian(encoder, batch, engine="rules"))
    generic = np.asarray(jj.jacobian(encoder, batch, engine="generic"))
    reverse = np.asarray(jj.jacobian(encoder, batch, mode="reverse"))
    np.testing.assert_array_equal(default, rules)
    np.testing.assert_array_equal(generic, reverse)
    assert not np.array_equal(rules, generic)  # two ways, not one under two names
    assert relative(jnp.asarray(rules), jnp.asarray(generic)) <= TOLERANCE["float32"]


def test_both_engines_score_alike(encoder: Encoder):
    batch = jax.random.normal(jax.random.key(0), (3, 16, 16, 3))
    rules = jj.score(encoder, batch, engine="rules").score
    generic = jj.score(encoder, batch, engine="generic").score
    np.testing.assert_allclose(rules, generic, atol=0.01)


def test_a_score_does_not_depend_on_the_batch(encoder: Encoder):
    batch = jax.random.normal(jax.random.key(0), (5, 16, 16, 3))
    together = np.asarray(jj.score(encoder, batch).score)
    alone = np.concatenate([jj.score(encoder, batch[i : i + 1]).score for i in range(5)])
    turned = np.asarray(jj.score(encoder, batch[::-1]).score)[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(together, turned, atol=1e-4)


def test_impossible_combinations_are_named(encoder: Encoder):
    batch = jnp.ones((1, 16, 16, 3))
    with pytest.raises(jj.ArgumentError, match="engine='rules' is a reverse mode"):
        jj.jacobian(encoder, batch, mode="forward", engine="rules")
    with pytest.raises(jj.ArgumentError, match="engine='rules' knows the layers of an Encoder alone"):
        jj.jacobian(lambda x: x.reshape(1, -1), batch, engine="rules")
    with pytest.raises(jj.ArgumentError, match="engine='fast' is unknown"):
        jj.score(encoder, batch, engine="fast")  # pyright: ignore[reportArgumentType]
