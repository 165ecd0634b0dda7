"""Singular values and scores, against matrices whose spectra are known and NumPy in float64."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from conftest import SHARED_DATA
from hypothesis import given, settings
from hypothesis import strategies as st

import jepa_jax as jj
from jepa_jax.encoders import EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.encoders.encoder import parameter_shapes
from jepa_jax.encoders.null_directions import complement_basis
from jepa_jax.jacobian.precision import LADDER, NOISE, ROUNDING
from jepa_jax.spectrum import gaussian_score
from jepa_jax.spectrum.error import noise_bias, predicted_error
from jepa_jax.spectrum.spectrum import ALGORITHMS, all_values, structural_values
from jepa_jax.spectrum.spectrum import log_volume as volume_without_eigensolver

U32, U64 = (float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64))

METHODS = ["svd", "gram"]  # cholesky_qr is in float32 alone, and has tests of its own
SPECTRA = SHARED_DATA / "spectra"

NATS = 1e-3
"""What a score may be off by, whatever the rounding."""


def orthonormal(rows: int, columns: int, seed: int) -> np.ndarray:
    """Random orthonormal columns [rows, columns]."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))[0]


def matrix_with(values: np.ndarray, outputs: int, inputs: int, seed: int = 0) -> np.ndarray:
    """A float64 matrix [outputs, inputs] with these non-zero singular values, and its left null space random."""
    rank = len(values)
    left, right = orthonormal(outputs, rank, seed), orthonormal(inputs, rank, seed + 1)
    return (left * values) @ right.T


def numpy_spectrum(matrix: np.ndarray) -> np.ndarray:
    """Singular values by LAPACK in float64; wrong by rounding of the largest, U64 * sigma_max or so."""
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


def jax_spectrum(matrix: np.ndarray, method: str, dtype: str) -> np.ndarray:
    """The package's singular values of a matrix in a dtype, as float64 numbers."""
    with jax.enable_x64(dtype == "float64"):
        found = jj.singular_values(jnp.asarray(matrix, dtype), method)  # pyright: ignore[reportArgumentType]
        assert found.dtype == dtype
        return np.asarray(found, np.float64)


def log_volume(values: np.ndarray) -> float:
    """Sum of logs, by NumPy."""
    return float(np.sum(np.log(values)))


def synthetic_spectrum(size: int) -> np.ndarray:
    """The shape of DINOv2-S's spectra: three decades, and two values of pure noise at 1e-5."""
    return np.concatenate([np.geomspace(200.0, 0.4, size - 2), [2.5e-3, 1.5e-3]])


def real_spectrum(name: str, image: int) -> np.ndarray:
    """One image's published singular values; skips where they are not at hand."""
    path: Path = SPECTRA / f"dinov2_{name}.npz"
    if not path.is_file():
        pytest.skip(f"the development spectra are not at {SPECTRA}")
    return np.load(path)["singular_values"][image].astype(np.float64)


@functools.cache
def jacobian_like(source: str) -> np.ndarray:
    """A float64 matrix [K, 2K] with a spectrum as encoders have it; ``source`` names which."""
    name, _, image = source.partition("/")
    values = synthetic_spectrum(int(image)) if name == "synthetic" else real_spectrum(name, int(image))
    return matrix_with(values, len(values), 2 * len(values))


# A typical image, the one whose structural values reach down furthest, and of the larger encoder the one with the
# widest spectrum of all: six decades.
SMALL_SOURCES = ["synthetic/96", "vits14_svhn/7", "vits14_cifar10/80"]
SOURCES = [*SMALL_SOURCES, "vitb14_svhn/96"]


@pytest.mark.parametrize("source", SOURCES)
def test_gram_scores_a_float32_jacobian_as_a_float64_svd_does(source):
    matrix = jacobian_like(source).astype(np.float32)
    values, expected = jj.singular_values(jnp.asarray(matrix)), numpy_spectrum(matrix)
    size, largest = len(expected), expected[0]
    # Squares move by K U64 sigma_max^2 at most, and the values return rounded to float32.
    moved = size * U64 * largest**2 + U32 * expected**2
    assert np.all(np.abs(np.asarray(values, np.float64) ** 2 - expected**2) <= moved)
    # In practice by U64 sigma_max^2: sigma / sigma_max = 1e-6, the smallest that occurs, moves its log by 1e-4.
    # Float32 logs that add up to 1,000 in absolute value, summed in pairs, lose up to 11 U32 / 2 of that: 7e-4.
    assert abs(float(jj.jepa_score(values)) - log_volume(expected)) <= NATS


@pytest.mark.parametrize("source", SMALL_SOURCES)
def test_svd_scores_a_float64_jacobian_as_numpy_does(source):
    matrix = jacobian_like(source)
    found, expected = jax_spectrum(matrix, "svd", "float64"), numpy_spectrum(matrix)
    moved = len(expected) * U64 * expected[0]
    assert np.max(np.abs(found - expected)) <= moved
    # A value that moves by at most m changes its log by at most -log(1 - m / sigma).
    tolerance = -np.sum(np.log1p(-moved / expected))
    assert tolerance <= NATS
    assert abs(log_volume(found) - log_volume(expected)) <= tolerance


@pytest.mark.parametrize("source", SMALL_SOURCES)
def test_svd_in_float32_is_right_down_to_its_rounding(source):
    # Its domain: values well above K U32 sigma_max, 5e-5 of the largest for K = 384. Structural nulls lie below,
    # and of some images a few more values; they come out as noise. That is why `auto` is not this.
    matrix = jacobian_like(source).astype(np.float32)
    found, expected = jax_spectrum(matrix, "svd", "float32"), numpy_spectrum(matrix)
    moved = len(expected) * U32 * expected[0]
    assert np.max(np.abs(found - expected)) <= moved
    inside = expected > 5 * moved
    assert np.mean(inside) > 0.95
    # Values move up or down independently of each other, so their logs' errors add up as squares.
    tolerance = np.sqrt(np.sum((moved / expected[inside]) ** 2))
    assert abs(log_volume(found[inside]) - log_volume(expected[inside])) <= tolerance


def test_gram_loses_what_its_square_loses_and_svd_does_not():
    # Squares below U64 sigma_max^2 drown: values below 1e-8 of the largest are noise from gram, not from svd.
    expected = np.array([1.0, 1e-3, 1e-6, 1e-10])
    matrix = matrix_with(expected, 4, 6)
    by_svd, by_gram = (jax_spectrum(matrix, method, "float64") for method in ("svd", "gram"))
    assert np.max(np.abs(by_svd - expected)) <= 4 * U64
    assert np.max(np.abs(by_gram**2 - expected**2)) <= 6 * U64
    assert abs(by_gram[-1] / expected[-1] - 1) > 0.5
    # 1e-6: the square moves by 6 U64 = 1.3e-15 at most, the value by half as much over 1e-6.
    assert np.max(np.abs(by_gram[:3] - expected[:3])) <= 1e-9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("noise", [0.0, 1e-3, 3.0])
def test_null_directions_are_projected_out_however_loud(method, dtype, noise):
    # Rows of noise along the null directions, in size nothing, typical, and larger than most of the spectrum;
    # sorting and dropping the smallest two values would be right in the first two cases only.
    outputs, inputs = 64, 256
    structural = np.geomspace(20.0, 0.1, outputs - 2)
    left = orthonormal(outputs, outputs, seed=3)
    rng = np.random.default_rng(4)
    nulls = left[:, -2:] @ np.array([[1.0, 0.6], [0.0, 0.8]])  # unit vectors, not orthogonal to each other
    silent = (left[:, :-2] * structural) @ orthonormal(inputs, outputs - 2, seed=5).T
    matrix = silent + nulls @ rng.standard_normal((2, inputs)) * noise / np.sqrt(inputs)
    with jax.enable_x64(dtype == "float64"):
        algorithm = ALGORITHMS[method]
        with jax.enable_x64(dtype == "float64" or method == "gram"):
            factor = algorithm.compress(jnp.asarray(matrix, dtype).T)
            basis = complement_basis(jnp.asarray(nulls, factor.dtype))
            everything = np.asarray(all_values(algorithm, factor, inputs))
            kept = np.asarray(structural_values(algorithm, factor, basis, inputs))
    assert everything.shape == (outputs,)
    assert kept.shape == (outputs - 2,)
    # Matrix and null directions are rounded to the dtype, and svd computes in it: values move by K U sigma_max
    # at most, the smallest by 0.15% in float32, which with 62 values from 0.1 to 20 is 0.02 nats at worst.
    moved = outputs * (U32 if dtype == "float32" else U64) * structural[0]
    if dtype == "float64" and method == "gram":
        moved = outputs * U64 * structural[0] ** 2 / structural[-1]  # squares move by K U sigma_max^2
    assert np.max(np.abs(kept - structural)) <= moved
    assert abs(log_volume(kept) - log_volume(structural)) <= -np.sum(np.log1p(-moved / structural))


@pytest.mark.parametrize("method", METHODS)
def test_more_outputs_than_inputs_gives_exact_zeros(method):
    expected = np.array([5.0, 2.0, 0.5])
    found = jax_spectrum(matrix_with(expected, 7, 3), method, "float32")
    assert found.shape == (7,)
    np.testing.assert_allclose(found[:3], expected, rtol=7 * U32 * 10)  # K U sigma_max, smallest a tenth of it
    np.testing.assert_array_equal(found[3:], 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_rank_deficient_matrix_has_rounding_past_its_rank(method):
    found = jax_spectrum(matrix_with(np.array([3.0, 1.0]), 5, 9), method, "float32")
    # The matrix itself is rounded to float32, which puts K U32 sigma_max at most where zeros were.
    moved = 5 * U32 * 3.0
    np.testing.assert_allclose(found[:2], [3.0, 1.0], rtol=0, atol=moved)
    assert np.all((found[2:] >= 0) & (found[2:] <= moved))


@pytest.mark.parametrize("method", METHODS)
def test_a_zero_matrix_scores_at_the_clip(method):
    values = jj.singular_values(jnp.zeros((4, 6)), method)
    np.testing.assert_array_equal(values, 0)
    # Four float32 logs of 13.8, each rounded by U32 / 2 of itself, and their sum.
    assert float(jj.jepa_score(values)) == pytest.approx(4 * math.log(1e-6), rel=2 * U32)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_one_broken_jacobian_is_nan_and_the_others_are_not(method, bad):
    batch = np.stack([matrix_with(np.array([3.0, 2.0, 1.0]), 3, 5, seed) for seed in range(3)])
    batch[1, 2, 4] = bad
    found = np.asarray(jj.singular_values(jnp.asarray(batch, jnp.float32), method))
    assert np.all(np.isnan(found[1]))
    assert np.isnan(jj.jepa_score(jnp.asarray(found[1])))
    np.testing.assert_allclose(found[[0, 2]], [[3.0, 2.0, 1.0]] * 2, rtol=3 * U32 * 3)  # K U sigma_max / sigma_min


def test_images_and_matrices_are_one_thing():
    batch = np.random.default_rng(0).standard_normal((2, 4, 3, 5, 3)).astype(np.float32)
    found = jj.singular_values(jnp.asarray(batch))
    assert found.shape == (2, 4)
    for one, values in zip(batch, found, strict=True):
        np.testing.assert_array_equal(jj.singular_values(jnp.asarray(one.reshape(4, -1))), values)
    np.testing.assert_array_equal(jj.singular_values(jnp.asarray(batch.reshape(2, 4, -1))), found)
    assert np.all(np.diff(found, axis=-1) <= 0)


@pytest.mark.parametrize(
    ("jacobian", "method", "message"),
    [
        (np.ones(5, np.float32), "auto", r"shape \(5,\)"),
        (np.ones((5, 5), np.int32), "auto", "dtype int32"),
        (np.ones((5, 5), np.float32), "qr", "method='qr'"),
        (np.ones((2, 5, 5), np.float32), "qr", "method='qr'"),
    ],
)
def test_unfit_jacobians_are_named(jacobian, method, message):
    with pytest.raises(jj.ArgumentError, match=message):
        jj.singular_values(jacobian, method)


SHAPES = [(1, 1), (3, 3), (4, 9), (6, 2)]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 2**31),
    exponents=st.lists(st.floats(-2.0, 2.0), min_size=4, max_size=4),
)
def test_rotations_and_permutations_of_the_embedding_do_not_count(shape, seed, exponents):
    outputs, inputs = shape
    rank = min(shape)
    values = np.sort(10.0 ** np.array(exponents[:rank]))[::-1]
    matrix = matrix_with(values, outputs, inputs, seed)
    rotation = orthonormal(outputs, outputs, seed + 2)
    shuffle = np.random.default_rng(seed).permutation(outputs)
    for turned in (matrix, rotation @ matrix, matrix[shuffle]):
        found = jax_spectrum(turned, "svd", "float64")[:rank]
        # Forming and turning the matrix each move values by K U64 sigma_max, and the SVD once more; sigma_max
        # is 1e4 times sigma_min at most, K six, and there are four values at most: 4 * 3 * 6 * 1e4 * U64 = 1.6e-10.
        assert abs(log_volume(found) - log_volume(values)) <= 1.6e-10


# Scores made of singular values


def paper_score(values: np.ndarray, null_directions: int, eps: float) -> np.ndarray:
    """Eq. 5 of arXiv 2510.05949 with the listing's clip."""
    kept = values[..., : values.shape[-1] - null_directions]
    return np.log(np.clip(kept, eps, None)).sum(axis=-1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("null_directions", "eps"), [(0, 1e-6), (2, 1e-6), (1, 1e-3), (39, 1e-6)])
def test_jepa_score_is_the_papers_formula(dtype, null_directions, eps):
    values = np.sort(10.0 ** np.random.default_rng(1).uniform(-9, 3, (2, 3, 40)))[..., ::-1].astype(dtype)
    expected = paper_score(values.astype(np.float64), null_directions, float(np.dtype(dtype).type(eps)))
    with jax.enable_x64(dtype == "float64"):
        found = jj.jepa_score(jnp.asarray(values), null_directions, eps)
        assert found.dtype == dtype
    assert found.shape == (2, 3)
    # At most 40 logs of at most 14, each wrong by two rounding units, added in any order.
    unit = U32 if dtype == "float32" else U64
    assert np.max(np.abs(np.asarray(found) - expected)) <= 40 * 14 * (2 + math.log2(40)) * unit


@pytest.mark.parametrize("null_directions", [-1, 4, 5])
def test_unfit_null_directions_are_named(null_directions):
    with pytest.raises(jj.ArgumentError, match=f"null_directions={null_directions} .* K - 1 = 3"):
        jj.jepa_score(jnp.ones(4), null_directions)


def test_gaussian_score_adds_the_normal_density():
    rng = np.random.default_rng(2)
    embedding, score = rng.standard_normal((5, 16)), rng.standard_normal(5)
    expected = score + scipy.stats.multivariate_normal(np.zeros(16)).logpdf(embedding)
    with jax.enable_x64(True):
        found = gaussian_score(jnp.asarray(score), jnp.asarray(embedding))
    # About twenty terms that add up to some tens.
    np.testing.assert_allclose(found, expected, rtol=20 * U64)


# jj.score on functions


def linear_map(values: np.ndarray, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """A kernel A of x @ A with these singular values, and a batch of two inputs."""
    return matrix_with(values, outputs, inputs).T, np.random.default_rng(6).standard_normal((2, inputs))


@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_linear_map_scores_its_log_volume(mode, method):
    values = np.array([4.0, 2.0, 1.0, 0.5])
    kernel, batch = linear_map(values, 6, 4)
    result = jj.score(lambda x: x @ kernel.astype(x.dtype), batch, mode=mode, method=method)
    # Kernel rounded to float32 and, with svd, decomposed in it: K U32 sigma_max for each value.
    moved = 4 * U32 * 4.0
    np.testing.assert_allclose(result.singular_values, [values] * 2, rtol=0, atol=moved)
    np.testing.assert_allclose(result.score, log_volume(values), rtol=0, atol=moved * np.sum(1 / values))
    np.testing.assert_array_equal(result.listing_score, result.score)
    # Sums of six products.
    np.testing.assert_allclose(result.embedding, batch @ kernel, rtol=0, atol=6 * U32 * 4.0 * np.abs(batch).max())
    assert result.log_volume_rank == 4
    assert result.gaussian_score is None


def test_a_float64_score_is_exact_and_leaves_float64_off_outside():
    values = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
    kernel, batch = linear_map(values, 8, 5)
    result = jj.score(lambda x: x @ kernel.astype(x.dtype), batch, precision="float64")
    assert result.score.dtype == result.embedding.dtype == result.singular_values.dtype == np.float64
    # K U64 sigma_max / sigma_min = 2e-14 for each of five values.
    assert np.max(np.abs(np.asarray(result.score) - log_volume(values))) <= 1e-13
    assert jnp.asarray(batch).dtype == jnp.float32
    assert not jax.config.read("jax_enable_x64")


def test_a_nonlinear_map_scores_its_analytic_jacobian():
    first, second = np.random.default_rng(8).standard_normal((2, 5, 5))
    batch = np.random.default_rng(9).standard_normal((3, 5))
    # z = tanh(x A) B, so dz/dx = B^T diag(1 - tanh^2) A^T.
    slopes = 1 - np.tanh(batch @ first) ** 2
    jacobians = np.einsum("hk,bh,ih->bki", second, slopes, first)

    def fn(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ first.astype(x.dtype)) @ second.astype(x.dtype)

    result = jj.score(fn, batch, precision="float64")
    expected = numpy_spectrum(jacobians)
    np.testing.assert_allclose(result.singular_values, expected, rtol=0, atol=10 * U64 * expected.max())
    # Ten rounding units of the largest value on each, over the smallest.
    tolerance = 10 * U64 * np.sum(expected.max(axis=1, keepdims=True) / expected, axis=1)
    assert np.all(np.abs(np.asarray(result.score) - np.log(expected).sum(axis=1)) <= tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_inputs_than_outputs_scores_the_rank(method):
    values = np.array([3.0, 2.0])
    kernel, batch = linear_map(values, 2, 5)
    result = jj.score(lambda x: x @ kernel.astype(x.dtype), batch, method=method)
    assert result.log_volume_rank == 2
    assert result.singular_values.shape == (2, 5)
    np.testing.assert_allclose(result.score, log_volume(values), rtol=0, atol=5 * U32 * 3 * np.sum(1 / values))
    # The paper's listing clips the three zeros instead.
    listing = log_volume(values) + 3 * math.log(1e-6)
    np.testing.assert_allclose(result.listing_score, listing, rtol=5 * U32)


def test_eps_clips_both_scores():
    kernel = np.diag([2.0, 1e-3]).astype(np.float32)
    result = jj.score(lambda x: x @ kernel, np.zeros((1, 2), np.float32), eps=0.1)
    np.testing.assert_allclose(result.score, math.log(0.2), rtol=4 * U32)
    np.testing.assert_allclose(result.listing_score, math.log(0.2), rtol=4 * U32)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_result_has_its_precisions_dtype(precision):
    kernel, batch = linear_map(np.array([2.0, 1.0, 0.5]), 4, 3)
    result = jj.score(lambda x: x @ kernel.astype(x.dtype), batch, precision=precision)
    shapes = {
        name: (getattr(result, name).shape, str(getattr(result, name).dtype))
        for name in ("score", "listing_score", "singular_values", "embedding")
    }
    assert shapes == {
        "score": ((2,), precision),
        "listing_score": ((2,), precision),
        "singular_values": ((2, 3), precision),
        "embedding": ((2, 3), precision),
    }


def test_a_result_goes_on_into_a_users_program():
    kernel, batch = linear_map(np.array([2.0, 1.0, 0.5]), 4, 3)

    def fn(x: jax.Array) -> jax.Array:
        return x @ kernel.astype(x.dtype)

    result = jj.score(fn, batch)
    doubled = jax.jit(lambda r: jax.tree.map(lambda leaf: leaf + leaf, r))(result)
    assert isinstance(doubled, jj.ScoreResult)
    assert doubled.log_volume_rank == result.log_volume_rank
    np.testing.assert_array_equal(doubled.score, 2 * np.asarray(result.score))
    # The same three logs, near one, from singular values that were rounded once more.
    np.testing.assert_allclose(jj.jepa_score(result.singular_values), result.score, rtol=0, atol=3 * U32)
    score, params = jj.score_fn(fn)
    inside = jax.jit(lambda params, x: score(params, x).score + jnp.ones(2))(params, jnp.asarray(batch))
    np.testing.assert_allclose(inside, np.asarray(result.score) + 1, rtol=4 * U32)


def test_one_broken_image_is_nan_and_the_others_are_not():
    kernel, batch = linear_map(np.array([2.0, 1.0, 0.5]), 4, 3)
    batch[0, 0] = np.nan

    def fn(x: jax.Array) -> jax.Array:
        return jnp.tanh(x) @ kernel.astype(x.dtype)

    result = jj.score(fn, batch)
    np.testing.assert_array_equal(np.isnan(result.score), [True, False])
    np.testing.assert_array_equal(np.isnan(result.listing_score), [True, False])


@pytest.mark.parametrize(
    ("encoder", "batch", "options", "message"),
    [
        (jnp.sin, np.ones((2, 3), np.float32), {"precision": "tf32"}, "precision='tf32'"),
        (jnp.sin, np.ones((2, 3), np.float32), {"mode": "backward"}, "mode='backward'"),
        (jnp.sin, np.ones((2, 3), np.float32), {"method": "qr"}, "method='qr'"),
        (jnp.sin, np.ones((2, 3), np.float32), {"block_size": 0}, "block_size=0"),
        (jnp.sin, np.ones((2, 3), np.float32), {"images_per_step": -1}, "images_per_step=-1"),
        (jnp.sin, np.ones((2, 3), np.uint8), {}, "dtype uint8"),
        (jnp.sin, np.ones(3, np.float32), {}, r"shape \(3,\)"),
        ("dinov2-small", np.ones((2, 3), np.float32), {}, "encoder is a str"),
    ],
)
def test_unfit_arguments_of_score_are_named(encoder, batch, options, message):
    with pytest.raises(jj.ArgumentError, match=message):
        jj.score(encoder, batch, **options)


# jj.score on encoders


def tiny_encoder(pooling: str, gaussian: bool) -> jj.Encoder:
    """An encoder small enough for NumPy to check: scales and biases around one, matrices around zero."""
    vit = ViTSpec(
        width=8,
        depth=1,
        heads=2,
        patch_size=4,
        native_image_size=8,
        mlp_width=12,
        pooling=pooling,  # pyright: ignore[reportArgumentType]
    )
    rng = np.random.default_rng(10)
    params = jax.tree.map(
        lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32) + (len(leaf.shape) == 1),
        parameter_shapes(vit),
    )
    recipe = PreprocessSpec(resize_shortest=8, crop=8)
    return jj.Encoder(EncoderSpec("tiny", "vit", vit, recipe, gaussian_embedding=gaussian), params)


def null_directions(encoder: jj.Encoder, embedding: np.ndarray) -> np.ndarray:
    """1 / g and (z - b) / g^2 for the last LayerNorm's scale g and bias b, as unit columns [K, 2]."""
    scale, bias = (np.asarray(encoder.params["norm"][name], np.float64) for name in ("scale", "bias"))
    columns = np.stack([1 / scale, (embedding - bias) / scale**2], axis=1)
    return columns / np.linalg.norm(columns, axis=0)


@pytest.mark.parametrize(("pooling", "nulls", "gaussian"), [("class_token", 2, False), ("mean_patches", 1, True)])
def test_an_encoders_score_leaves_its_null_directions_out(pooling, nulls, gaussian):
    encoder = tiny_encoder(pooling, gaussian)
    batch = np.random.default_rng(11).standard_normal((2, 8, 8, 3))
    # flax's LayerNorm promotes its input with float32, which strict promotion forbids for float64.
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(True):
        result = jj.score(encoder, batch, precision="float64")
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), encoder.params)
        jacobians = jj.jacobian(functools.partial(encoder.function, params), jnp.asarray(batch))
    directions = np.array([null_directions(encoder, z)[:, :nulls] for z in np.asarray(result.embedding)])
    matrices = np.asarray(jacobians).reshape(2, 8, -1)
    complements = np.linalg.qr(directions, mode="complete")[0][:, :, nulls:]
    structural = numpy_spectrum(complements.swapaxes(1, 2) @ matrices)
    largest, smallest = structural.max(), structural.min()
    assert result.log_volume_rank == 8 - nulls
    np.testing.assert_allclose(result.singular_values, numpy_spectrum(matrices), rtol=0, atol=8 * U64 * largest)
    # Eight values, each moved by some rounding units of the largest in the Jacobian and in the decomposition.
    np.testing.assert_allclose(
        result.score, np.log(structural).sum(axis=1), rtol=0, atol=8 * 100 * U64 * largest / smallest
    )
    # Along 1 / g nothing is left but rounding; along (z - b) / g^2, LayerNorm's epsilon over its input's variance.
    assert np.all(np.linalg.norm(directions[:, :, 0][:, None] @ matrices, axis=-1) <= 100 * U64 * largest)
    assert np.all(np.asarray(result.singular_values)[:, -nulls] <= 1e-2 * smallest)
    if gaussian:
        assert result.gaussian_score is not None
        normal = scipy.stats.multivariate_normal(np.zeros(8)).logpdf(np.asarray(result.embedding))
        np.testing.assert_allclose(result.gaussian_score, np.asarray(result.score) + normal, rtol=20 * U64)
    else:
        assert result.gaussian_score is None


PUBLISHED = ["vits14_cifar10", "vits14_svhn", "vitb14_cifar10", "vitb14_svhn"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_algorithm_scores_published_spectra_as_float64_does(name):
    # Of each set the image whose structural values reach down furthest, with its two null values put in and
    # projected out. Rounding of the float32 matrix is common to all; what is left is the algorithm's own.
    path: Path = SPECTRA / f"dinov2_{name}.npz"
    if not path.is_file():
        pytest.skip(f"the development spectra are not at {SPECTRA}")
    spectra = np.load(path)["singular_values"].astype(np.float64)
    values = spectra[np.argmin(spectra[:, -3] / spectra[:, 0])]
    size = len(values)
    left = orthonormal(size, size, seed=8)
    columns = (orthonormal(4 * size, size, seed=9) * values @ left.T).astype(np.float32)
    basis = np.linalg.qr(left[:, -2:], mode="complete")[0][:, 2:]
    expected = log_volume(numpy_spectrum(columns.astype(np.float64) @ basis))
    for method, algorithm in ALGORITHMS.items():
        with jax.enable_x64(method == "gram"):
            factor = jax.jit(algorithm.compress)(jnp.asarray(columns))
            projection = jnp.asarray(basis, factor.dtype)
            by_values = structural_values(algorithm, factor, projection, 4 * size)
            by_volume, inverse_squares = volume_without_eigensolver(algorithm, factor, projection)
            assert abs(log_volume(np.asarray(by_values, np.float64)) - expected) <= NATS, method
            assert abs(float(by_volume) - expected) <= NATS, method
            smallest = float(by_values[-1])
            assert smallest / math.sqrt(size) <= float(inverse_squares) ** -0.5 * 1.01 <= 1.02 * smallest


@pytest.mark.parametrize("method", ALGORITHMS)
def test_parts_of_the_input_merge_into_the_whole(method):
    matrix = matrix_with(np.geomspace(5.0, 0.05, 12), 12, 40).astype(np.float32)
    algorithm = ALGORITHMS[method]
    with jax.enable_x64(method == "gram"):
        parts = jnp.stack([algorithm.compress(jnp.asarray(part)) for part in np.split(matrix.T, 2)])
        found = algorithm.singular_values(algorithm.merge(parts))
        np.testing.assert_allclose(found, numpy_spectrum(matrix), rtol=0, atol=12 * U32 * 5.0 * 4)


@pytest.mark.parametrize("method", ALGORITHMS)
@pytest.mark.parametrize("case", ["zero", "rank one", "NaN"])
def test_matrices_at_the_edge(method, case):
    matrix = np.zeros((6, 30), np.float32)
    if case == "rank one":
        matrix += np.outer(np.arange(1, 7), np.linspace(1, 2, 30)).astype(np.float32)
    if case == "NaN":
        matrix[2, 3] = np.nan
    found = np.asarray(jj.singular_values(jnp.asarray(matrix), method))
    if case == "NaN":
        assert np.all(np.isnan(found))
        return
    largest = numpy_spectrum(matrix)[0]
    assert abs(found[0] - largest) <= 60 * U32 * largest
    assert np.all(found[1:] <= 1e-3 * largest)  # noise, below every value that counts


def test_the_score_alone_equals_the_score_with_its_spectrum():
    # 0.5 and the rest lie above the clip, 1e-9 below it: where the clip decides, the spectrum is computed after all.
    for values in ([2.0, 1.0, 0.5], [2.0, 1.0, 1e-9]):
        kernel, batch = linear_map(np.array(values), 4, 3)

        def fn(x: jax.Array, kernel: np.ndarray = kernel) -> jax.Array:
            return x @ kernel.astype(x.dtype)

        with_spectrum, alone = jj.score(fn, batch), jj.score(fn, batch, spectrum=False)
        np.testing.assert_allclose(alone.score, with_spectrum.score, rtol=8 * U32, atol=8 * U32)
        assert alone.singular_values.shape == (2, 0)
        assert np.all(np.isnan(alone.listing_score))


@pytest.mark.parametrize("rung", LADDER[:-2])
@pytest.mark.parametrize("name", PUBLISHED[:3])
def test_the_predicted_error_is_honest_on_published_spectra(name, rung):
    # Rounding as noise of the rung's size in every entry of the Jacobian, which one null direction shows, and as
    # a relative error of each value: what all rows share.
    path: Path = SPECTRA / f"dinov2_{name}.npz"
    if not path.is_file():
        pytest.skip(f"the development spectra are not at {SPECTRA}")
    images = range(0, 240, 4 if name.startswith("vits") else 12)
    spectra = np.load(path)["singular_values"].astype(np.float64)
    rng = np.random.default_rng(0)
    size, inputs = spectra.shape[1], 4 * spectra.shape[1]
    errors, predictions = [], []
    right = orthonormal(inputs, size, seed=10)
    for image in images:
        values = spectra[image, :-2]
        noise = NOISE[rung] * np.sqrt(np.sum(values**2) / (size * inputs)) * rng.standard_normal((inputs, size))
        # In the basis of its left singular vectors, the last two of them null.
        shared = 1 + (ROUNDING[rung] + 12 * U32 / 2) * rng.standard_normal(size - 2)
        columns = np.concatenate([right[:, :-2] * values * shared, np.zeros((inputs, 2))], axis=1) + noise
        gauge = np.linalg.norm(columns[:, -1])
        kept = np.sqrt(np.linalg.eigvalsh(columns[:, :-2].T @ columns[:, :-2])[::-1])
        predicted = predicted_error(
            noise_bias(jnp.asarray(kept, jnp.float32), jnp.float32(gauge)),
            jnp.float32(np.sum(kept**-2)),
            jnp.float32(gauge),
            rank=size - 2,
            inputs=jnp.float32(inputs),
            unit=ROUNDING[rung],
            forward_unit=U32 / 2,
        )
        errors.append(abs(log_volume(kept) - log_volume(values)))
        predictions.append(float(predicted))
    assert np.mean(np.array(errors) <= np.array(predictions)) >= 0.95
    assert np.median(predictions) <= 5 * np.median(errors)
