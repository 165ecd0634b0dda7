"""float16 has a narrow range: what leaves it is scored one level up, and where there is none of it, it is refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from makes import MAKES, loud_params

import jepa_jax as jj
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.precision import LEVELS


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def steep() -> Encoder:
    """An encoder at whose flat images cotangents grow past what float16 holds, and at others do not."""
    spec = dataclasses.replace(MAKES["class token"], norm_eps=1e-14)
    params = loud_params(spec, "float32")
    for name in ("class_token", "position_embedding"):
        params[name] = 1e-6 * params[name]
    params["patch_embedding"]["projection"]["bias"] *= 0
    return Encoder(EncoderSpec("steep", "vit", spec, PreprocessSpec(18, 16)), params)


def test_what_is_out_of_float16s_range_goes_one_level_up(steep, batch):
    images = np.concatenate([batch[:2], 1e-6 * batch[2:]])
    whole = jj.score(steep, images, precision="tensorfloat32")
    result = jj.score(steep, images, precision="float16")
    up = LEVELS.index("tensorfloat32")
    np.testing.assert_array_equal(result.level, [up - 1, up - 1, up, up])
    np.testing.assert_array_equal(np.asarray(result.score)[2:], np.asarray(whole.score)[2:])
    assert np.all(np.isfinite(result.score_error))
    exact = np.asarray(jj.score(steep, images, precision="float64").score)
    assert np.all(np.abs(np.asarray(result.score) - exact) <= 2 * np.asarray(result.score_error))
    # A pure function cannot look at its results: it says that there is none.
    run, params = jj.score_fn(steep, precision="float16")
    np.testing.assert_array_equal(np.isfinite(run(params, jnp.asarray(images)).score), [True, True, False, False])


def test_an_image_that_is_not_finite_stays_where_it_is(steep, batch):
    images = batch[:2].copy()
    images[1, 0, 0, 0] = np.nan
    result = jj.score(steep, images, precision="float16")
    np.testing.assert_array_equal(result.level, LEVELS.index("float16"))
    np.testing.assert_array_equal(np.isnan(result.score), [False, True])


def test_float16_is_refused_where_there_is_none():
    with pytest.raises(jj.ArgumentError, match="precision='float16': TPUs have no such numbers; use 'bfloat16'"):
        JacobianOptions(precision="float16", platform="tpu")


@pytest.mark.parametrize("make", ["class token", "patch mean"])
@pytest.mark.parametrize("power", [-30, 17])
def test_a_final_norm_of_any_size_costs_no_digits(make, power, batch):
    spec, scores = MAKES[make], []
    for size in (1.0, 2.0**power):
        params = loud_params(spec, "float32")
        params["norm"] = {name: size * value for name, value in params["norm"].items()}
        encoder = Encoder(EncoderSpec("sized", "vit", spec, PreprocessSpec(18, 16)), params)
        result = jj.score(encoder, batch, precision="float16", eps=1e-20)
        np.testing.assert_array_equal(result.level, LEVELS.index("float16"))
        scores.append(np.asarray(result.score, np.float64) - result.log_volume_rank * np.log(size))
    # A power of two changes no digit of any product; of the score, those that float32 has of its larger value.
    np.testing.assert_allclose(scores[1], scores[0], rtol=0, atol=1e-4)
