"""The layer rules against JAX's own differentiation: each pullback alone, and whole encoders of every make."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jepa_jax.jacobian.counting import multiplications, naive_multiplications, planned_multiplications
from jepa_jax.jacobian.rules import columns_to_jacobian, rules_columns
from makes import MAKES, PLAIN, TOLERANCE, loud_params

import jepa_jax as jj
from jepa_jax.encoders import Encoder, EncoderFunction, EncoderSpec, PreprocessSpec, ViTSpec, find_spec
from jepa_jax.encoders.parameters import parameter_shapes
from jepa_jax.jacobian import pullbacks
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.precision import einsum_of


def rules_jacobian(spec: ViTSpec, params: dict, image: jax.Array, **how: Any) -> jax.Array:
    return columns_to_jacobian(spec, rules_columns(spec, params, image, **how), image.shape)


def relative(found: jax.Array, expected: jax.Array) -> float:
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("make", MAKES)
def test_rules_equal_jax(make: str, dtype: str):
    spec = MAKES[make]
    with jax.enable_x64(dtype == "float64"):
        params = loud_params(spec, dtype)
        image = jnp.asarray(np.random.default_rng(2).standard_normal((12, 20, 3)), dtype)
        function = EncoderFunction(spec)
        expected = jax.jit(jax.jacrev(lambda value: function(params, value[None])[0]))(image)
        for block_size in (None, 5):
            found = jax.jit(functools.partial(rules_jacobian, spec, block_size=block_size))(params, image)
            assert found.shape == (spec.embedding_size, 12, 20, 3)
            assert found.dtype == dtype
            assert relative(found, expected) <= TOLERANCE[dtype]
        if dtype == "float64":
            check_along_a_direction(lambda value: function(params, value), image, found)


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


@pytest.mark.parametrize("rows", [2, 40])
def test_the_mlp_rule_equals_vjp_folded_or_not(rows: int):
    width, hidden = 12, 30
    assert (width * hidden + rows * width < 2 * rows * hidden) == (rows == 40)  # one of each way
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 6)
        token, gain, layer_scale = (jax.random.normal(key, (width,)) for key in keys[:3])
        first = jax.random.normal(keys[3], (width, hidden))
        second = jax.random.normal(keys[4], (hidden, width))
        cotangent = jax.random.normal(keys[5], (width, rows))

        def normalize(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            inverse_std = jax.lax.rsqrt(jnp.var(x) + 1e-6)
            return (x - jnp.mean(x)) * inverse_std, inverse_std

        def branch(x: jax.Array) -> jax.Array:
            return (jnp.tanh((normalize(x)[0] * gain) @ first) @ second) * layer_scale

        normalized, inverse_std = normalize(token)
        slopes = 1 - jnp.tanh((normalized * gain) @ first) ** 2
        inward = pullbacks.centered(first * gain[:, None])
        outward = second * layer_scale
        found = pullbacks.mlp(einsum_of("float64"), cotangent, slopes, outward, inward, normalized, inverse_std)
        _, pullback = jax.vjp(branch, token)
        expected = jax.vmap(lambda row: pullback(row)[0], in_axes=1, out_axes=1)(cotangent)
        assert relative(found, expected) <= 1e-13


@pytest.mark.parametrize(("queries", "keys", "width"), [(7, 7, 3), (1, 7, 3), (5, 5, 9)])
def test_the_attention_rule_equals_vjp(queries: int, keys: int, width: int):
    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return jax.nn.softmax(query @ key.T, axis=-1) @ value

    with jax.enable_x64(True):
        seeds = jax.random.split(jax.random.key(0), 4)
        query = jax.random.normal(seeds[0], (queries, width))
        key, value = (jax.random.normal(seed, (keys, width)) for seed in seeds[1:3])
        cotangent = jax.random.normal(seeds[3], (queries, width, 4))
        _, pullback = jax.vjp(attend, query, key, value)
        expected = jax.vmap(pullback, in_axes=2, out_axes=2)(cotangent)
        of_query, of_key, of_value = pullbacks.attention(einsum_of("float64"), cotangent, query, key, value)
        for found, wanted in zip((of_query, of_key.transpose(1, 0, 2), of_value), expected, strict=True):
            assert relative(found, wanted) <= 1e-13


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


@pytest.mark.parametrize("image_size", [112, 224])
def test_the_rules_do_less_arithmetic_than_one_pullback_per_row(image_size: int):
    spec = find_spec("dinov2-small").vit
    params = parameter_shapes(spec)
    image = jax.ShapeDtypeStruct((image_size, image_size, 3), jnp.float32)

    rules = planned_multiplications(EncoderFunction(spec), params, image, JacobianOptions())
    assert rules <= 0.75 * naive_multiplications(EncoderFunction(spec), params, image)


def test_multiplications_are_those_of_the_products():
    kernel = jnp.ones((5, 3))

    def twice(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: (c @ kernel @ kernel.T, None), x, None, length=7)[0]

    assert multiplications(jax.make_jaxpr(twice)(jnp.ones((2, 5))).jaxpr) == 7 * 2 * (2 * 5 * 3)


def test_impossible_combinations_are_named(encoder: Encoder):
    batch = jnp.ones((1, 16, 16, 3))
    with pytest.raises(jj.ArgumentError, match="engine='rules' is a reverse mode"):
        jj.jacobian(encoder, batch, mode="forward", engine="rules")
    with pytest.raises(jj.ArgumentError, match="engine='rules' knows the layers of an Encoder alone"):
        jj.jacobian(lambda x: x.reshape(1, -1), batch, engine="rules")
    with pytest.raises(jj.ArgumentError, match="engine='fast' is unknown"):
        jj.score(encoder, batch, engine="fast")  # pyright: ignore[reportArgumentType]
