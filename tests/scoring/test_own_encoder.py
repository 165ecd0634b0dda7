"""Encoders of users' own: parameters are arguments, null directions are left out, and what is unfit is named."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

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


@dataclasses.dataclass(frozen=True)
class Named:
    """Equal to all of its name, whatever their weights."""

    name: str
    kernel: np.ndarray = dataclasses.field(compare=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ self.kernel)

    def normed(self, params: Any, x: jax.Array) -> jax.Array:
        del params
        return self(x)


def test_functions_that_call_themselves_equal_are_scored_each_by_itself():
    one, other = Named("a", PARAMS["kernel"]), Named("a", 2 * PARAMS["kernel"])
    assert one == other
    assert hash(one) == hash(other)
    expected = jj.score(lambda x: other(x), BATCH).score
    for of in (lambda named: named, lambda named: named.__call__, lambda named: jj.OwnEncoder(named.normed)):
        found = [np.asarray(jj.score(of(named), BATCH).score) for named in (one, other)]
        np.testing.assert_array_equal(found[1], expected)
        assert np.all(found[0] != found[1])
        programs = len(_programs)
        jj.score(of(other), BATCH)
        assert len(_programs) == programs, "of a method, which is another object each time, the program is the same"


class Trained(nnx.Module):
    def __init__(self):
        self.inner, self.outer = nnx.Linear(20, 12, rngs=nnx.Rngs(0)), nnx.Linear(12, 5, rngs=nnx.Rngs(1))
        self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=nnx.Rngs(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.outer(self.hidden(x))

    def hidden(self, x: jax.Array) -> jax.Array:
        return self.dropout(jnp.tanh(self.inner(x)))


@pytest.mark.parametrize("of", [lambda model: model, lambda model: model.hidden], ids=["module", "method"])
def test_a_module_that_is_trained_is_scored_with_the_weights_that_it_has_now(of: Any):
    model = Trained()
    first = jj.score(of(model), BATCH).score
    programs = len(_programs)
    model.inner.kernel[...] = 3 * model.inner.kernel[...]
    second = jj.score(of(model), BATCH)
    assert len(_programs) == programs
    assert np.all(np.asarray(first) != np.asarray(second.score))
    expected = jj.score(lambda x: of(model)(x), BATCH)  # another function, and compiled anew
    difference = np.abs(np.asarray(second.score) - np.asarray(expected.score))
    assert np.all(difference <= np.asarray(second.score_error) + np.asarray(expected.score_error))


def test_a_module_in_training_is_refused():
    model = Trained()
    model.train()
    with pytest.raises(jj.ArgumentError, match=r"changes when it is called \(.*'dropout'.*call its eval\(\) first"):
        jj.score(model, BATCH)
    with pytest.raises(jj.ArgumentError, match="call its eval"):
        jj.jacobian(model, BATCH)
    model.eval()
    assert np.all(np.isfinite(jj.score(model, BATCH).score))


def test_a_program_is_that_of_the_width_in_which_arrays_enter():
    wide = jj.OwnEncoder(normed, PARAMS | {"kernel": np.float64(PARAMS["kernel"])}, nulls)
    expected = jj.score(wide, BATCH).score
    with jax.enable_x64(True):
        found = jj.score(wide, BATCH)
    assert found.score.dtype == np.float32
    np.testing.assert_allclose(found.score, expected, rtol=0, atol=2 * np.max(found.score_error))
    np.testing.assert_array_equal(jj.score(wide, BATCH).score, expected)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_a_function_rounds_itself_counts_as_error(dtype: str, precision: Any):
    def inside(params: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(x.astype(dtype) @ params["kernel"].astype(dtype))

    def hidden(params: Any, x: jax.Array) -> jax.Array:
        return inside(params, x).astype(jnp.float32)

    exact = np.asarray(
        jj.score(lambda x: jnp.tanh(x @ PARAMS["kernel"].astype(x.dtype)), BATCH, precision="float64").score
    )
    for function in (inside, hidden, jax.jit(hidden)):
        result = jj.score(jj.OwnEncoder(function, PARAMS), BATCH, precision=precision)
        assert result.score.dtype == result.embedding.dtype == precision
        difference = np.abs(np.asarray(result.score) - exact)
        assert np.max(difference) > 1e-5
        assert np.all(difference <= np.asarray(result.score_error))


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
