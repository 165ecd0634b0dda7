"""Matrices whose spectra are known, and NumPy in float64 to compare with."""

import jax
import jax.numpy as jnp
import numpy as np
from development_data import SHARED_DATA

import jepa_jax as jj

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


PUBLISHED = ["vits14_cifar10", "vits14_svhn", "vitb14_cifar10", "vitb14_svhn"]
