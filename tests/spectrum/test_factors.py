"""One law for every algorithm and both kinds of factor: they say of a Jacobian what NumPy's float64 SVD says of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_spectra import METHODS, U32, U64, log_volume, matrix_with, numpy_spectrum, orthonormal

from jepa_jax.numerics.bases import complement_basis
from jepa_jax.spectrum.factor import Factor, GramFactor
from jepa_jax.spectrum.methods import ALGORITHMS
from jepa_jax.spectrum.spectrum import all_values, for_each, structural_values

OUTPUTS = 12


def stacked(factors: list[Factor]) -> Factor:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *factors)


def moved(factor: Factor, values: np.ndarray, largest: float) -> np.ndarray:
    """By how much rounding may move each of some values: 4 K U sigma_max, or their squares by 4 K U sigma_max^2."""
    most = 4 * OUTPUTS * float(jnp.finfo(factor.dtype).eps) * largest
    if isinstance(factor, GramFactor):
        return np.minimum(most * largest / values, np.sqrt(most * largest))
    return np.full_like(values, most)


@pytest.mark.parametrize(("inputs", "nulls"), [(40, 0), (40, 2), (5, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ALGORITHMS)
def test_a_factor_says_what_the_svd_of_the_jacobian_says(method, dtype, inputs, nulls):
    rank = min(OUTPUTS, inputs)
    matrix = matrix_with(np.geomspace(5.0, 0.05, rank), OUTPUTS, inputs).astype(dtype)
    directions = np.random.default_rng(2).standard_normal((OUTPUTS, nulls))
    basis = np.linalg.qr(directions, mode="complete")[0][:, nulls:]
    expected = numpy_spectrum(basis.T @ matrix)[: min(OUTPUTS - nulls, inputs)]
    wide = matrix.astype(np.float64)
    largest = float(np.linalg.norm(wide, 2))
    algorithm = ALGORITHMS[method]
    with algorithm.scope(matrix.dtype):
        factor = algorithm.compress(jnp.asarray(matrix.T))
        assert factor.outputs == OUTPUTS
        assert factor.dtype == ("float64" if algorithm.needs_float64 else dtype)
        unit = 4 * OUTPUTS * float(jnp.finfo(factor.dtype).eps)
        projection = jnp.asarray(basis, factor.dtype)

        everything, reference = np.asarray(all_values(factor, inputs), np.float64), numpy_spectrum(wide)[:rank]
        assert np.all(np.abs(everything[:rank] - reference) <= moved(factor, reference, largest))
        np.testing.assert_array_equal(everything[rank:], 0)
        kept = np.asarray(structural_values(factor, projection, inputs), np.float64)
        tolerance = moved(factor, expected, largest)
        assert np.all(np.abs(kept - expected) <= tolerance)

        vectors, values = (np.asarray(found, np.float64) for found in factor.left_vectors(projection))
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(values.size), rtol=0, atol=unit)
        square = basis.T @ wide @ wide.T @ basis
        np.testing.assert_allclose(vectors * values**2 @ vectors.T, square, rtol=0, atol=2 * unit * largest**2)

        if inputs > OUTPUTS:
            total, inverse_squares = (float(found) for found in factor.log_volume(projection))
            # A value that moves by at most m changes its log by at most -log(1 - m / sigma).
            assert abs(total - log_volume(expected)) <= -np.sum(np.log1p(-tolerance / expected))
            lost = np.sum((expected - tolerance) ** -2.0) - np.sum(expected**-2.0)
            assert abs(inverse_squares - np.sum(expected**-2.0)) <= lost
            # Solved with a triangle (of squares, if it is a Gram's), whose condition multiplies what rounding does.
            condition = (largest / expected[-1]) ** (2 if isinstance(factor, GramFactor) else 1)
            rows = np.linalg.svd(basis.T @ wide, full_matrices=False)[2]
            for direction in (np.eye(OUTPUTS)[0], basis[:, 0]):
                within = float(factor.noise_within(jnp.asarray(direction, factor.dtype), projection))
                assert abs(within - np.linalg.norm(rows @ (direction @ wide))) <= unit * condition * largest

        assert abs(float(factor.norm()) - np.linalg.norm(wide)) <= unit * np.linalg.norm(wide)
        # Along any direction, and along one that the Jacobian hardly reaches, or but for its rounding.
        silent = np.linalg.svd(wide)[0][:, -1]
        for direction in (np.eye(OUTPUTS)[0], silent):
            found = float(factor.noise_along(jnp.asarray(direction, factor.dtype)))
            along = np.array([np.linalg.norm(direction @ wide)])
            assert abs(found - along) <= moved(factor, along, largest)


@pytest.mark.parametrize("method", ALGORITHMS)
def test_parts_of_the_input_merge_into_the_whole(method):
    matrix = matrix_with(np.geomspace(5.0, 0.05, 12), 12, 40).astype(np.float32)
    algorithm = ALGORITHMS[method]
    with algorithm.scope(matrix.dtype):
        parts = [algorithm.compress(jnp.asarray(part)) for part in np.split(matrix.T, 2)]
        found = type(parts[0]).merge(stacked(parts)).singular_values()
        np.testing.assert_allclose(found, numpy_spectrum(matrix), rtol=0, atol=12 * U32 * 5.0 * 4)


@pytest.mark.parametrize("method", ALGORITHMS)
def test_factors_pass_through_every_transformation(method):
    # As scoring uses them: side by side or one by one, as an operand of a choice, compiled.
    matrices = np.stack([matrix_with(np.geomspace(5.0, 0.5, 6), 6, 20, seed) for seed in range(3)]).astype(np.float32)
    algorithm = ALGORITHMS[method]
    with algorithm.scope(matrices.dtype):
        basis = jnp.eye(6, dtype=algorithm.compress(jnp.asarray(matrices[0].T)).dtype)[:, 1:]

        def volume(factor: Factor) -> tuple[jax.Array, jax.Array]:
            return jax.lax.cond(factor.norm() > 0, lambda f: f.log_volume(basis), lambda f: (f.norm(),) * 2, factor)

        def volumes(columns: jax.Array, platform) -> tuple[jax.Array, jax.Array]:
            factors = for_each(algorithm.compress, columns, platform=platform)
            assert factors.outputs == 6
            return for_each(volume, factors, platform=platform)

        columns = jnp.asarray(matrices.swapaxes(1, 2))
        expected = [log_volume(numpy_spectrum(matrix[1:])) for matrix in matrices]
        for platform in ("cpu", "gpu"):
            total, inverse_squares = jax.jit(volumes, static_argnums=1)(columns, platform)
            # Five values, each wrong by 4 K U32 sigma_max over the smallest, a tenth of it.
            np.testing.assert_allclose(total, expected, rtol=0, atol=5 * 4 * 6 * U32 * 10)
            assert inverse_squares.shape == (3,)
            alone = jax.jit(volumes, static_argnums=1)(columns[:1], platform)[0]
            np.testing.assert_allclose(alone, expected[:1], rtol=0, atol=5 * 4 * 6 * U32 * 10)


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
        with algorithm.scope(jnp.dtype(dtype)):
            factor = algorithm.compress(jnp.asarray(matrix, dtype).T)
            basis = complement_basis(jnp.asarray(nulls, factor.dtype))
            everything = np.asarray(all_values(factor, inputs))
            kept = np.asarray(structural_values(factor, basis, inputs))
    assert everything.shape == (outputs,)
    assert kept.shape == (outputs - 2,)
    # Matrix and null directions are rounded to the dtype, and svd computes in it: values move by K U sigma_max
    # at most, the smallest by 0.15% in float32, which with 62 values from 0.1 to 20 is 0.02 nats at worst.
    moved = outputs * (U32 if dtype == "float32" else U64) * structural[0]
    if dtype == "float64" and method == "gram":
        moved = outputs * U64 * structural[0] ** 2 / structural[-1]  # squares move by K U sigma_max^2
    assert np.max(np.abs(kept - structural)) <= moved
    assert abs(log_volume(kept) - log_volume(structural)) <= -np.sum(np.log1p(-moved / structural))
