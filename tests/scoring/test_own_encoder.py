"""Encoders of users' own: parameters are arguments, null directions are left out, and what is unfit is named."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jepa_jax as jj
from jepa_jax.scoring.scorer import _programs

RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": RNG.normal(0, 0.3, (20, 12)).astype(np.float32),
    "scale": RNG.uniform(0.5, 1.5, 12).astype(np.float32),
    "bias": RNG.normal(0, 0.2, 12).astype(np.float32),
    "steps": np.array(7),  # counted in training, no number to differentiate
}
BATCH = RNG.normal(size=(3, 20)).astype(np.float32)


def normed(params: dict[str, Any], x: jax.Array) -> jax.Array:
    """[B, 20] -> [B, 12], through a LayerNorm without an epsilon."""
    hidden = jnp.tanh(x @ params["kernel"])
    deviation = hidden - jnp.mean(hidden, axis=-1, keepdims=True)
    unit = deviation / jnp.sqrt(jnp.mean(deviation**2, axis=-1, keepdims=True))
    return unit * params["scale"] + params["bias"]


def nulls(params: dict[str, Any], embedding: jax.Array) -> jax.Array:
    return jj.layer_norm_null_directions(params["scale"], params["bias"], embedding)


OWN = jj.OwnEncoder(normed, PARAMS, nulls)


@pytest.fixture(scope="module")
def spectra() -> np.ndarray:
    """[3, 12] singular values in float64, descending."""
    with jax.enable_x64(True):
        params = {name: np.float64(value) for name, value in PARAMS.items()}
        jacobians = jax.vmap(jax.jacrev(lambda x: normed(params, x[None])[0]))(jnp.asarray(BATCH, jnp.float64))
        return np.linalg.svd(np.asarray(jacobians), compute_uv=False)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_null_directions_are_left_out(spectra: np.ndarray, precision: Any):
    assert np.all(spectra[:, 10:] < 1e-14 * spectra[:, :1])
    assert np.all(spectra[:, 9] > 1e-4 * spectra[:, 0])
    result = jj.score(OWN, BATCH, precision=precision)
    assert result.log_volume_rank == 10
    assert result.score.dtype == precision
    kept = spectra[:, :10]
    difference = np.abs(np.asarray(result.score) - np.log(kept).sum(axis=1))
    # Twenty rounding units of the largest value on each: sums of 20 products, and a norm.
    unit = np.finfo(precision).eps / 2
    assert np.all(difference <= 20 * unit * np.sum(kept[:, :1] / kept, axis=1))
    assert np.all(np.asarray(result.score_error) < {"float32": 1e-2, "float64": 1e-9}[precision])


def test_what_is_not_said_or_wrong_shows_as_an_error():
    silent = jj.score(jj.OwnEncoder(normed, PARAMS), BATCH)
    assert silent.log_volume_rank == 12
    assert np.all(np.asarray(silent.score_error) > 0.5)
    wrong = jj.score(jj.OwnEncoder(normed, PARAMS, lambda params, z: jnp.eye(12, dtype=z.dtype)[:, :2]), BATCH)
    assert np.all(np.asarray(wrong.score_error) > 0.5)


def test_parameters_are_arguments_and_change_without_a_new_program():
    scorer = jj.Scorer(OWN)
    first = scorer(BATCH)
    programs = len(_programs)
    other = PARAMS | {"kernel": 1.5 * PARAMS["kernel"]}
    second = jj.Scorer(jj.OwnEncoder(normed, other, nulls))(BATCH)
    assert len(_programs) == programs
    assert np.all(np.asarray(first.score) != np.asarray(second.score))
    assert "f32[20,12]" in str(scorer.program(BATCH).text()).split("\n", 1)[0]


def test_every_entry_takes_one():
    expected = jj.score(OWN, BATCH)
    np.testing.assert_array_equal(OWN(jnp.asarray(BATCH)), normed(PARAMS, jnp.asarray(BATCH)))
    rows = jj.jacobian(OWN, BATCH)
    values = jj.singular_values(rows)
    np.testing.assert_allclose(jj.jepa_score(values, null_directions=2), expected.score, rtol=0, atol=1e-3)
    fn, params = jj.score_fn(OWN)
    np.testing.assert_allclose(fn(params, jnp.asarray(BATCH)).score, expected.score, rtol=0, atol=1e-4)
    # The gradient, null directions turning with the input and all, against differences of fourth order.
    with jax.enable_x64(True):
        gradient = np.asarray(jj.score_gradient(OWN, BATCH, precision="float64"))
        direction, step = RNG.normal(size=BATCH.shape), 1e-3
        moved = [jj.score(OWN, BATCH + k * step * direction, precision="float64").score for k in (-2, -1, 1, 2)]
    far, near = np.asarray(moved[3]) - np.asarray(moved[0]), np.asarray(moved[2]) - np.asarray(moved[1])
    np.testing.assert_allclose(np.sum(gradient * direction, axis=1), (8 * near - far) / (12 * step), rtol=1e-6)


def test_a_gaussian_embedding_has_a_density():
    own = jj.OwnEncoder(lambda params, x: jnp.tanh(x @ params["kernel"]), PARAMS, gaussian=True)
    result = jj.score(own, BATCH)
    assert result.gaussian_score is not None
    log_normal = -0.5 * np.sum(np.asarray(result.embedding) ** 2, axis=1) - 6 * np.log(2 * np.pi)
    np.testing.assert_allclose(result.gaussian_score, np.asarray(result.score) + log_normal, rtol=1e-5)


def test_a_division_by_the_length_leaves_one_direction_out():
    def unit(params: dict[str, Any], x: jax.Array) -> jax.Array:
        z = jnp.tanh(x @ params["kernel"])
        return z / jnp.linalg.norm(z, axis=-1, keepdims=True)

    result = jj.score(jj.OwnEncoder(unit, PARAMS, lambda params, z: z[:, None]), BATCH)
    assert result.log_volume_rank == 11
    assert np.all(np.asarray(result.score_error) < 1e-2)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: jj.OwnEncoder(3), "fn is of type int; it must be a function"),  # pyright: ignore[reportArgumentType]
        (lambda: jj.OwnEncoder(normed, PARAMS, 2), "null_directions is of type int; it must be a function"),  # pyright: ignore[reportArgumentType]
        (
            lambda: jj.OwnEncoder(normed, {"act": jnp.tanh}),
            r"params holds .*tanh.* must be a tree of arrays",
        ),
        (lambda: jj.OwnEncoder(normed, {"eps": 1e-6}), r"params holds 1e-06, a float, and must be a tree of arrays"),
        (
            lambda: jj.score(jj.OwnEncoder(normed, PARAMS, lambda p, z: z), BATCH),
            r"null_directions returns shape \(12,\)",
        ),
        (
            lambda: jj.score(jj.OwnEncoder(normed, PARAMS, lambda p, z: jnp.eye(12)), BATCH),
            r"null_directions returns shape \(12, 12\) of an embedding of K = 12 values; it must be \[K, m\]",
        ),
        (lambda: jj.score(OWN, BATCH.astype(int)), "batch has dtype int"),
        (lambda: jj.score(OWN, BATCH, layers=[1]), r"layers=\[1\]: a function has no layers that are known"),
        (lambda: jj.score(OWN, BATCH, precision="bfloat16"), "needs the layer rules"),
    ],
)
def test_what_is_unfit_is_named(made: Any, message: str):
    with pytest.raises(jj.ArgumentError, match=message):
        made()
