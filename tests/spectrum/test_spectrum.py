"""Spectrum algorithms, against matrices whose spectra are known and NumPy in float64."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import (
    METHODS,
    NATS,
    PUBLISHED,
    SPECTRA,
    U32,
    U64,
    jax_spectrum,
    log_volume,
    matrix_with,
    numpy_spectrum,
    orthonormal,
)

import jepa_jax as jj
from jepa_jax.encoders.null_directions import complement_basis
from jepa_jax.spectrum.spectrum import ALGORITHMS, all_values, structural_values
from jepa_jax.spectrum.spectrum import log_volume as volume_without_eigensolver


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
@pytest.mark.parametrize("case", ["zero", "rank one", "more outputs than inputs", "NaN"])
def test_matrices_at_the_edge(method, case):
    matrix = np.zeros((6, 30), np.float32)
    if case == "more outputs than inputs":
        matrix = matrix_with(np.array([1.0]), 6, 4).astype(np.float32)
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
