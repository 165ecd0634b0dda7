"""The spectrum by Householder QR of J^T and SVD of R, in the Jacobian's own precision: backward stable, and slowest.

It changes singular values by about the rounding unit times the largest. Works for any K and D, on any backend.
"""

from __future__ import annotations

from jepa_jax.spectrum.algorithm import Algorithm
from jepa_jax.spectrum.factor import TriangleFactor

ALGORITHM = Algorithm(TriangleFactor.of)
