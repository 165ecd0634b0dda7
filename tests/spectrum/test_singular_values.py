"""Singular values of Jacobians of every shape, and of matrices at the edge."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import METHODS, U32, jax_spectrum, log_volume, matrix_with, numpy_spectrum, orthonormal

import jepa_jax as jj
from jepa_jax.spectrum.methods import ALGORITHMS


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


@pytest.mark.parametrize("method", METHODS)
def test_numpys_float64_keeps_its_digits_where_jaxs_is_off(method):
    expected = np.array([3.0, 1e-3, 1e-5])
    found = jj.singular_values(matrix_with(expected, 3, 5), method)
    assert found.dtype == np.float64
    # A Gram matrix loses 2^-53 of the largest square, half of which over the smallest value is 2e-11, a few times. In
    # float32 already the matrix would move it by up to 2e-7.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    score = jj.jepa_score(found)
    assert score.dtype == np.float64
    np.testing.assert_allclose(score, np.log(expected).sum(), rtol=1e-5)


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
        # A program of its own, in which sums may have another order: in float64, rounded to float32 in the end. That
        # is the nearest float32 number on either side, and one unit between them at most.
        np.testing.assert_allclose(jj.singular_values(jnp.asarray(one.reshape(4, -1))), values, rtol=U32)
    np.testing.assert_allclose(jj.singular_values(jnp.asarray(batch.reshape(2, 4, -1))), found, rtol=U32)
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
