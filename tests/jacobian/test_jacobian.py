"""Jacobians: one problem table, every way of computing them, against each other and finite differences."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jacobian_problems import (
    BATCH,
    PROBLEMS,
    SMALL,
    TOLERANCE,
    VITS,
    Problem,
    computing_in,
    jacobians_by,
    linear,
    ones,
    points,
    relative_error,
    tiny_encoder,
    truth,
    weights,
)

import jepa_jax as jj


def resolved(block: str, problem: Problem) -> int:
    """A block size in words to a number."""
    whole = max(problem.outputs, int(np.prod(problem.shape)))
    return {"one": 1, "three": 3, "all": whole, "more": whole + 5}[block]


def check_way(name: str, dtype: str, mode: str, block: str, images_per_step: int) -> None:
    """One way of computing the Jacobian against the truth."""
    problem = PROBLEMS[name]
    way = functools.partial(
        jj.jacobian,
        problem.fn,
        mode=mode,  # pyright: ignore[reportArgumentType] (a plain str here, to be parametrised)
        block_size=resolved(block, problem),
        images_per_step=images_per_step,
    )
    with computing_in(dtype):
        found = jax.jit(way)(points(name, dtype))
    assert found.shape == (BATCH, problem.outputs, *problem.shape)
    assert found.dtype == dtype
    assert relative_error(found, truth(name)) <= TOLERANCE[dtype]


# Twelve pairs of mode and block size; images per step and dtype go round so that every pair of two settings occurs.
MODES, BLOCKS = ("forward", "reverse", "auto"), ("one", "three", "all", "more")
STEPS, DTYPES = (1, 2, BATCH), ("float32", "float64")
WAYS = [
    (DTYPES[(i + j) % 2], mode, block, STEPS[(i + j) % 3])
    for (i, mode), (j, block) in itertools.product(enumerate(MODES), enumerate(BLOCKS))
]
# A transformer compiles for seconds, so each goes fewer ways; the blocks are the same code for every function.
VIT_WAYS = [
    ("float64", "forward", "three", 1),
    ("float64", "reverse", "three", BATCH),
    ("float32", "auto", "all", 1),
]


@pytest.mark.parametrize(("dtype", "mode", "block", "images_per_step"), WAYS)
@pytest.mark.parametrize("name", SMALL)
def test_every_way_agrees(name, dtype, mode, block, images_per_step):
    check_way(name, dtype, mode, block, images_per_step)


@pytest.mark.parametrize(("dtype", "mode", "block", "images_per_step"), VIT_WAYS)
@pytest.mark.parametrize("name", VITS)
def test_every_way_agrees_on_a_vit(name, dtype, mode, block, images_per_step):
    check_way(name, dtype, mode, block, images_per_step)


@pytest.mark.parametrize("name", PROBLEMS)
def test_truth_is_jacfwd_too(name):
    assert relative_error(jacobians_by(jax.jacfwd, name), truth(name)) <= TOLERANCE["float64"]


@pytest.mark.parametrize("name", PROBLEMS)
def test_truth_is_finite_differences_too(name):
    # Five points: the error is h^4/30 f^(5) + 1.5 u |f| / h. With h = 1e-3 and functions that bend over lengths of
    # 0.3 or more (f^(5) = 4! f' / 0.3^4), the first is 1e-10 of f' at most. So is the second, for outputs near one
    # that are wrong by u = 1e-15 (a forward pass of ten operations) and slopes of 1e-2, as small as the ViTs have.
    step, tolerance = 1e-3, 3e-10
    problem, x = PROBLEMS[name], points(name)
    directions = np.eye(int(np.prod(problem.shape))).reshape(-1, *problem.shape)
    with computing_in("float64"):
        # One example per input value, [B, D, *shape], through the function at once, for each of the four shifts.
        fn = jax.jit(problem.fn)
        slopes = sum(
            weight / (12 * step) * np.asarray(fn((x[:, None] + k * step * directions).reshape(-1, *problem.shape)))
            for k, weight in [(1, 8), (-1, -8), (2, -1), (-2, 1)]
        )
    found = np.moveaxis(np.reshape(slopes, (BATCH, -1, problem.outputs)), 1, 2).reshape(truth(name).shape)
    assert relative_error(found, truth(name)) <= tolerance


def test_truth_of_a_linear_map_is_its_matrix():
    matrix = weights(0, 30, 4).T.reshape(4, 2, 5, 3)
    expected = np.broadcast_to(matrix, (BATCH, *matrix.shape))
    assert relative_error(truth("linear_of_a_wide_image"), expected) <= TOLERANCE["float64"]


def test_large_inputs_go_forward_in_blocks_of_columns():
    # More values than jacfwd is given at once, and no multiple of the default block.
    problem = linear((4099,), 2)
    found = jj.jacobian(problem.fn, jnp.ones((1, 4099)), mode="forward")
    # Each entry is one weight times one: exact.
    np.testing.assert_array_equal(found[0], weights(0, 4099, 2).T.astype(np.float32))


def only_reverse() -> Callable[[jax.Array], jax.Array]:
    """tanh with a pullback of its own, through which JAX refuses forward mode."""

    @jax.custom_vjp
    def fn(x: jax.Array) -> jax.Array:
        return jnp.tanh(x)

    fn.defvjp(lambda x: (jnp.tanh(x), x), lambda x, cotangent: (cotangent * (1 - jnp.tanh(x) ** 2),))
    return fn


def test_auto_is_reverse_where_the_input_is_larger():
    curved = only_reverse()
    found = jj.jacobian(lambda x: curved(x)[:, :2], jnp.zeros((1, 3)))
    np.testing.assert_array_equal(found[0], np.eye(2, 3))


def test_auto_is_forward_where_the_input_is_smaller():
    curved = only_reverse()
    with pytest.raises(TypeError, match="forward-mode"):
        jj.jacobian(lambda x: jnp.tile(curved(x), (1, 2)), jnp.zeros((1, 3)))


def test_an_example_does_not_see_its_batch():
    fn = jax.jit(functools.partial(jj.jacobian, PROBLEMS["vit_swiglu_registers"].fn))
    x = points("vit_swiglu_registers", "float32")
    broken = x.copy()
    broken[0] = np.nan
    together = np.asarray(fn(x), np.float64)
    for other, place in [(fn(x[::-1]), BATCH - 2), (fn(broken), 1), (fn(x[1:2]), 0)]:
        assert relative_error(other[place], together[1]) <= TOLERANCE["float32"]


def test_a_score_does_not_see_its_batch():
    encoder = tiny_encoder()
    x = points("vit_class_token")
    broken = x.copy()
    broken[0] = np.nan
    with jax.numpy_dtype_promotion("standard"):
        together, backwards, beside = (jj.score(encoder, y, precision="float64") for y in (x, x[::-1], broken))
    values = np.asarray(together.singular_values)[:, : together.log_volume_rank]
    # A change dJ moves each singular value by at most |dJ| (Weyl), so the score by at most sum |dJ| / sigma.
    tolerance = TOLERANCE["float64"] * np.linalg.norm(values) * np.max(np.sum(1 / values, axis=1))
    assert np.isnan(beside.score[0])
    assert np.max(np.abs(np.asarray(beside.score)[1:] - np.asarray(together.score)[1:])) <= tolerance
    assert np.max(np.abs(np.asarray(backwards.score)[::-1] - np.asarray(together.score))) <= tolerance


def test_eager_jit_and_vmap_agree():
    fn, x = PROBLEMS["mlp"].fn, jnp.asarray(points("mlp", "float32"))
    expected = truth("mlp")
    batches = jnp.stack([x, x[::-1]])
    assert relative_error(jj.jacobian(fn, x), expected) <= TOLERANCE["float32"]
    assert relative_error(jax.jit(lambda x: jj.jacobian(fn, x))(x), expected) <= TOLERANCE["float32"]
    mapped = jax.vmap(lambda x: jj.jacobian(fn, x))(batches)
    assert relative_error(mapped, np.stack([expected, expected[::-1]])) <= TOLERANCE["float32"]


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_users_program_can_differentiate_it(mode):
    matrix = weights(4, 6, 4)

    def fn(x: jax.Array) -> jax.Array:
        return x**3 @ matrix.astype(x.dtype)

    @jax.jit
    @jax.grad
    def slope(x: jax.Array) -> jax.Array:
        return jnp.sum(jj.jacobian(fn, x, mode, block_size=3) ** 2) / 2

    x = np.random.default_rng(5).standard_normal((BATCH, 6))
    with computing_in("float64"):
        found = slope(x)
    # J[k, i] = 3 x_i^2 A[i, k], so d (|J|^2 / 2) / dx_i = 18 x_i^3 |A[i]|^2.
    assert relative_error(found, 18 * x**3 * np.sum(matrix**2, axis=1)) <= TOLERANCE["float64"]


@pytest.mark.parametrize(
    ("fn", "x", "options", "message"),
    [
        (lambda x: x, np.ones((2, 3), np.int32), {}, "dtype int32"),
        (lambda x: x, ones(3), {}, r"x has shape \(3,\)"),
        (lambda x: x, ones(0, 3), {}, r"x has shape \(0, 3\)"),
        (lambda x: x[0], ones(2, 3), {}, r"fn maps \(2, 3\) to \(3,\)"),
        (
            lambda x: x @ jnp.ones((4, 5)),
            ones(2, 3),
            {},
            r"fn fails on a batch of shape \(2, 3\).*x\[None\].*TypeError",
        ),
        (lambda x: x[:, :, None], ones(2, 3), {}, r"fn maps \(2, 3\) to \(2, 3, 1\)"),
        (lambda x: x.T, ones(2, 3), {}, r"must return \[2, K\]"),
        (lambda x: (x, x), ones(2, 3), {}, "fn maps .* to tuple"),
        (lambda x: jnp.argmax(x, axis=1, keepdims=True), ones(2, 3), {}, "int32"),
        (lambda x: x, ones(2, 3), {"mode": "backward"}, "mode='backward'"),
        (lambda x: x, np.ones((2, 3)), {"precision": "float64"}, "precision='float64' needs JAX's float64"),
        (lambda x: x, ones(2, 3), {"block_size": 0}, "block_size=0"),
        (lambda x: x, ones(2, 3), {"images_per_step": -1}, "images_per_step=-1"),
    ],
    ids=[
        "integer_input",
        "no_batch_axis",
        "empty_batch",
        "output_without_batch_axis",
        "that_fails",
        "output_with_another_axis",
        "output_transposed",
        "two_outputs",
        "integer_output",
        "unknown_mode",
        "float64_switched_off",
        "no_block",
        "negative_step",
    ],
)
def test_unfit_arguments_are_named(fn, x, options, message):
    with pytest.raises(jj.ArgumentError, match=message):
        jj.jacobian(fn, x, **options)
