"""The gradient of a score against central differences of the score itself, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from makes import MAKES, loud_params

import jepa_jax as jj
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec

DIRECTIONS = 3


def encoder_of(make: str) -> Encoder:
    spec = MAKES[make]
    return Encoder(EncoderSpec("tiny", "dinov2", spec, PreprocessSpec(18, 16)), loud_params(spec, "float32"))


def slopes(scored, batch: np.ndarray, directions: np.ndarray, step: float) -> np.ndarray:
    """d score / d step along each direction [n, *batch.shape], [n, B], by differences of fourth order."""
    weights = {1: 8, -1: -8, 2: -1, -2: 1}
    shifted = np.stack([batch + k * step * directions for k in weights])
    scores = jj.score(scored, shifted.reshape(-1, *batch.shape[1:]), precision="float64").score
    by_shift = np.asarray(scores).reshape(len(weights), len(directions), len(batch))
    return np.tensordot(list(weights.values()), by_shift, 1) / (12 * step)


def along(gradient: jax.Array, directions: np.ndarray) -> np.ndarray:
    axes = tuple(range(2, directions.ndim))
    return np.sum(np.asarray(gradient, np.float64) * directions, axis=axes)


# Two null directions, one, and none; the second of "class token" is null up to LayerNorm's epsilon alone.
@pytest.mark.parametrize("make", ["class token", "patch mean", "pre-norm, quick GELU, projection"])
def test_the_gradient_is_the_slope_of_the_score(make):
    encoder = encoder_of(make)
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((2, 8, 12, 3))
    directions = rng.standard_normal((DIRECTIONS, *batch.shape))
    expected = slopes(encoder, batch, directions, 1e-4)
    exact = jj.score_gradient(encoder, batch, precision="float64", block_size=5)
    assert exact.shape == batch.shape
    assert exact.dtype == np.float64
    assert not jax.config.read("jax_enable_x64")
    # Scores near 50 nats, right to 1e-14 of that times the condition of J, over a step of 1e-4.
    np.testing.assert_allclose(along(exact, directions), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    rough = jj.score_gradient(encoder, batch)
    assert rough.dtype == np.float32
    assert np.linalg.norm(np.asarray(rough) - np.asarray(exact)) <= 1e-3 * np.linalg.norm(exact)


@pytest.mark.parametrize(("outputs", "method"), [(3, "gram"), (3, "cholesky_qr"), (9, "svd")])
def test_any_function_has_a_gradient(outputs, method):
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((5, 7)) / 2, rng.standard_normal((7, outputs)) / 2

    def fn(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ first.astype(x.dtype)) @ second.astype(x.dtype)

    batch = rng.standard_normal((2, 5))
    directions = rng.standard_normal((DIRECTIONS, *batch.shape))
    expected = slopes(fn, batch, directions, 1e-4)
    exact = jj.score_gradient(fn, batch, precision="float64")
    np.testing.assert_allclose(along(exact, directions), expected, rtol=1e-8, atol=1e-8)
    rough = jj.score_gradient(fn, batch, method=method)
    np.testing.assert_allclose(rough, exact, rtol=0, atol=1e-4 * np.abs(exact).max())


def test_values_under_the_clip_and_broken_images():
    def fn(x: jax.Array) -> jax.Array:
        return jnp.stack([x[:, 0] ** 2, 1e-9 * x[:, 1] ** 2], axis=1)

    batch = np.array([[3.0, 1.0], [np.nan, 1.0]])
    found = np.asarray(jj.score_gradient(fn, batch))
    np.testing.assert_allclose(found[0], [1 / 3, 0], rtol=1e-6)  # d log(2 x) / dx
    assert np.all(np.isnan(found[1]))
    with pytest.raises(jj.ArgumentError, match="precision='bfloat16' is too coarse for a gradient"):
        jj.score_gradient(fn, batch, precision="bfloat16")
