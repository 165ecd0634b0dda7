"""Singular values by rotations: each right to its own last digits, however small, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax.spectrum.jacobi import singular_values


def graded(count: int, powers: float, rows: int | None = None) -> np.ndarray:
    """A triangle, as CholeskyQR leaves it, whose values fall by so many powers of ten; or some rows more, and full."""
    rng = np.random.default_rng(count)
    left, right = (np.linalg.qr(rng.standard_normal((size, size)))[0] for size in (rows or count, count))
    matrix = (left[:, :count] * np.logspace(0, -powers, count)) @ right
    return (matrix if rows else np.asarray(np.linalg.qr(matrix.T, mode="r")).T).astype(np.float32)


# Some ten sweeps turn a column K times each, mostly by next to nothing: 1e-6 is a dozen units of float32.
@pytest.mark.parametrize(("count", "powers"), [(1, 0), (2, 1), (7, 3), (64, 5), (129, 6)])
def test_every_value_is_right_to_its_own_digits(count: int, powers: float):
    matrix = graded(count, powers)
    expected = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(jax.jit(singular_values)(matrix), expected, rtol=2e-6)


def test_scale_and_shape_do_not_matter():
    matrix = graded(12, 2, rows=40)
    expected = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    # Not triangular, and its columns are far from orthogonal: right to the digits of the largest.
    np.testing.assert_allclose(singular_values(jnp.asarray(matrix)), expected, atol=1e-6)
    for scale in (1e-30, 1e30):
        found = singular_values(jnp.asarray(np.float32(scale) * matrix))
        np.testing.assert_allclose(np.asarray(found, np.float64) / scale, expected, atol=2e-6)
    both = jax.vmap(singular_values)(jnp.stack([jnp.asarray(matrix), 2 * jnp.asarray(matrix)]))
    np.testing.assert_allclose(both, np.stack([expected, 2 * expected]), atol=2e-6)


def test_what_is_missing_is_zero_and_what_is_no_number_stays_none():
    matrix = graded(8, 1)
    matrix[:, 5:] = 0
    found = np.asarray(singular_values(jnp.asarray(matrix)))
    np.testing.assert_array_equal(found[5:], 0)
    assert np.all(found[:5] > 0)
    np.testing.assert_array_equal(singular_values(jnp.zeros((3, 3))), 0)
    assert np.all(np.isnan(singular_values(jnp.full((3, 3), jnp.nan))))


def test_float64_has_its_own_digits():
    with jax.enable_x64(True):
        matrix = graded(30, 4).astype(np.float64)
        found = singular_values(jnp.asarray(matrix))
        np.testing.assert_allclose(found, np.linalg.svd(matrix, compute_uv=False), rtol=1e-12)
