"""Jacobians: one problem table, every way of computing them, against each other and finite differences."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jepa_jax as jj
from jepa_jax.encoders import EncoderFunction, EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.encoders.encoder import Params, parameter_shapes
from jepa_jax.jacobian import backend_check, check_backend

BATCH = 3

# Relative Frobenius error. Each entry is a chain of about ten operations with sums of at most 100 terms, whose
# rounding errors add up like a random walk: some tens of rounding units (6e-8, 1.1e-16), and LayerNorm's division
# by a standard deviation multiplies that by a few.
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


@contextlib.contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Full precision in one dtype."""
    # flax's LayerNorm promotes its input with float32, which strict promotion forbids for float64.
    promotion = "standard" if dtype == "float64" else "strict"
    with (
        jax.enable_x64(dtype == "float64"),
        jax.numpy_dtype_promotion(promotion),
        jax.default_matmul_precision("highest"),
    ):
        yield


@dataclass(frozen=True)
class Problem:
    """A function ``[B, *shape] -> [B, K]`` that computes in its input's dtype."""

    fn: Callable[[jax.Array], jax.Array]
    shape: tuple[int, ...]
    outputs: int


def weights(seed: int, inputs: int, outputs: int) -> np.ndarray:
    """A random matrix [inputs, outputs] that keeps the size of what it multiplies."""
    return np.random.default_rng(seed).standard_normal((inputs, outputs)) / np.sqrt(inputs)


def linear(shape: tuple[int, ...], outputs: int) -> Problem:
    """A linear map, whose Jacobian is its own transposed matrix."""
    matrix = weights(0, int(np.prod(shape)), outputs)

    def fn(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1) @ matrix.astype(x.dtype)

    return Problem(fn, shape, outputs)


def mlp(shape: tuple[int, ...], outputs: int) -> Problem:
    """Two layers with a tanh between them."""
    first, second = weights(1, int(np.prod(shape)), 11), weights(2, 11, outputs)

    def fn(x: jax.Array) -> jax.Array:
        hidden = jnp.tanh(x.reshape(x.shape[0], -1) @ first.astype(x.dtype))
        return hidden @ second.astype(x.dtype)

    return Problem(fn, shape, outputs)


def random_params(spec: ViTSpec) -> Params:
    """Parameters as no initialisation has them: scales and biases around one, matrices around zero."""
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32) + (len(leaf.shape) == 1),
        parameter_shapes(spec),
    )


def vit(spec: ViTSpec, height: int, width: int) -> Problem:
    """A vision transformer with random parameters."""
    params = random_params(spec)

    def fn(x: jax.Array) -> jax.Array:
        return EncoderFunction(spec)(jax.tree.map(lambda p: p.astype(x.dtype), params), x)

    return Problem(fn, (height, width, 3), spec.embedding_size)


CLASS_TOKEN = ViTSpec(width=6, depth=1, heads=2, patch_size=4, native_image_size=8, mlp_width=12)
MEAN_PATCHES = ViTSpec(
    width=6,
    depth=1,
    heads=2,
    patch_size=4,
    native_image_size=8,
    mlp_width=12,
    class_token=False,
    pooling="mean_patches",
    activation="quick_gelu",
    qkv_bias=False,
)
SWIGLU_REGISTERS = ViTSpec(
    width=6,
    depth=1,
    heads=2,
    patch_size=4,
    native_image_size=8,
    mlp_width=12,
    activation="swiglu",
    register_tokens=2,
    layer_scale=True,
    position_resize="bicubic_antialias",
)

SMALL = {
    "linear_of_a_wide_image": linear((2, 5, 3), 4),
    "mlp": mlp((7,), 6),
    "less_input_than_output": mlp((2,), 7),
    "one_output": mlp((9,), 1),
}
VITS = {
    "vit_class_token": vit(CLASS_TOKEN, 8, 8),
    "vit_mean_patches_wide": vit(MEAN_PATCHES, 4, 12),
    "vit_swiglu_registers": vit(SWIGLU_REGISTERS, 8, 8),
}
PROBLEMS = SMALL | VITS


def points(name: str, dtype: str = "float64") -> np.ndarray:
    """The batch at which a problem is differentiated; the same numbers in either dtype."""
    values = np.random.default_rng(7).standard_normal((BATCH, *PROBLEMS[name].shape))
    return values.astype(np.float32).astype(dtype)


def jacobians_by(transform: Callable, name: str) -> np.ndarray:
    """Float64 Jacobians [B, K, *shape] by one of JAX's own transformations."""
    fn = PROBLEMS[name].fn
    with computing_in("float64"):
        one = transform(lambda example: fn(example[None])[0])
        return np.asarray(jax.jit(jax.vmap(one))(points(name)))


@functools.cache
def truth(name: str) -> np.ndarray:
    """What every way must agree with; `test_truth_*` check it against two other sources."""
    return jacobians_by(jax.jacrev, name)


def relative_error(found: jax.Array | np.ndarray, expected: np.ndarray) -> float:
    """Frobenius norm of the difference over the norm of what is expected, over a whole batch."""
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected))


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


@pytest.fixture(scope="module")
def encoder() -> jj.Encoder:
    """A tiny encoder with random parameters."""
    spec = EncoderSpec("tiny", "vit", CLASS_TOKEN, PreprocessSpec(resize_shortest=8, crop=8))
    return jj.Encoder(spec, random_params(CLASS_TOKEN))


def test_a_score_does_not_see_its_batch(encoder):
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


def ones(*shape: int) -> np.ndarray:
    """Something to differentiate at, where the error comes first."""
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("fn", "x", "options", "message"),
    [
        (lambda x: x, np.ones((2, 3), np.int32), {}, "dtype int32"),
        (lambda x: x, ones(3), {}, r"x has shape \(3,\)"),
        (lambda x: x, ones(0, 3), {}, r"x has shape \(0, 3\)"),
        (lambda x: x[0], ones(2, 3), {}, r"fn maps \(2, 3\) to \(3,\)"),
        (lambda x: x[:, :, None], ones(2, 3), {}, r"fn maps \(2, 3\) to \(2, 3, 1\)"),
        (lambda x: x.T, ones(2, 3), {}, r"must return \[2, K\]"),
        (lambda x: (x, x), ones(2, 3), {}, "fn maps .* to tuple"),
        (lambda x: jnp.argmax(x, axis=1, keepdims=True), ones(2, 3), {}, "int32"),
        (lambda x: x, ones(2, 3), {"mode": "backward"}, "mode='backward'"),
        (lambda x: x, ones(2, 3), {"block_size": 0}, "block_size=0"),
        (lambda x: x, ones(2, 3), {"images_per_step": -1}, "images_per_step=-1"),
    ],
    ids=[
        "integer_input",
        "no_batch_axis",
        "empty_batch",
        "output_without_batch_axis",
        "output_with_another_axis",
        "output_transposed",
        "two_outputs",
        "integer_output",
        "unknown_mode",
        "no_block",
        "negative_step",
    ],
)
def test_unfit_arguments_are_named(fn, x, options, message):
    with pytest.raises(jj.ArgumentError, match=message):
        jj.jacobian(fn, x, **options)


@pytest.fixture
def forgotten_checks() -> Iterator[None]:
    """The backend is checked anew, and again afterwards, whatever the test made of it."""
    backend_check._failed_checks.cache_clear()
    yield
    backend_check._failed_checks.cache_clear()


def test_this_backend_is_sound():
    checks = check_backend()
    assert all(check.passed for check in checks)
    # Sums of at most 64 products of numbers near 1; the tolerance leaves room for other orders of summation.
    assert max(check.error for check in checks) <= 64 * np.finfo(np.float32).eps / 2


def test_a_check_that_gives_nan_fails():
    assert not backend_check.Check("nothing", float("nan"), 1.0).passed


@pytest.mark.usefixtures("forgotten_checks")
@pytest.mark.parametrize("use", [jj.jacobian, jj.score, lambda fn, x: jax.jit(lambda y: jj.jacobian(fn, y))(x)])
def test_a_backend_that_lies_is_refused(monkeypatch, use):
    wrong = backend_check.Check("softmax pullback over a block of rows", 0.3, 1e-5)
    monkeypatch.setattr(backend_check, "_softmax_pullback", lambda: wrong)
    with pytest.raises(jj.BackendError, match=r"softmax pullback.*3\.0e-01.*pip install.*doctor"):
        use(jnp.sin, ones(1, 2))


@pytest.mark.usefixtures("forgotten_checks")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_check_may_happen_inside_a_trace(dtype):
    with computing_in(dtype):
        found = jax.jit(lambda x: jj.jacobian(jnp.sin, x))(np.zeros((1, 2), dtype))
    np.testing.assert_array_equal(found[0], np.eye(2))


def inexact_products(program: str) -> tuple[int, int]:
    """How many matrix products a StableHLO program has, and how many do not ask for full precision."""
    products = [line for line in program.splitlines() if "dot_general" in line or "stablehlo.convolution" in line]
    return len(products), sum("precision = [HIGHEST, HIGHEST]" not in line for line in products)


@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
@pytest.mark.parametrize("method", ["svd", "gram"])
def test_every_product_of_a_float32_score_is_exact(encoder, mode, method):
    # XLA's default is TF32 on NVIDIA GPUs and bfloat16 on TPUs; the CPU's results would not show it.
    fn, params = jj.score_fn(encoder, mode=mode, method=method)
    assert isinstance(fn, functools.partial)
    total, inexact = inexact_products(fn.func.lower(*fn.args, params, ones(2, 8, 8, 3)).as_text())
    assert total > 10
    assert inexact == 0


def test_every_product_of_an_embedding_is_exact(encoder):
    total, inexact = inexact_products(jax.jit(encoder).lower(ones(2, 8, 8, 3)).as_text())
    assert total > 5
    assert inexact == 0


def test_inexact_products_would_be_seen(encoder):
    plain = jax.jit(encoder.function).lower(encoder.params, ones(2, 8, 8, 3))
    total, inexact = inexact_products(plain.as_text())
    assert total == inexact > 5
