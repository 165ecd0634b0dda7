"""How accurate each algorithm is on spectra as encoders have them, against NumPy in float64."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_spectra import (
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
from jepa_jax.spectrum.methods import ALGORITHMS
from jepa_jax.spectrum.spectrum import structural_values


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
        with algorithm.scope(columns.dtype):
            factor = jax.jit(algorithm.compress)(jnp.asarray(columns))
            projection = jnp.asarray(basis, factor.dtype)
            by_values = structural_values(factor, projection, 4 * size)
            by_volume, inverse_squares = factor.log_volume(projection)
            assert abs(log_volume(np.asarray(by_values, np.float64)) - expected) <= NATS, method
            assert abs(float(by_volume) - expected) <= NATS, method
            smallest = float(by_values[-1])
            assert smallest / math.sqrt(size) <= float(inverse_squares) ** -0.5 * 1.01 <= 1.02 * smallest
