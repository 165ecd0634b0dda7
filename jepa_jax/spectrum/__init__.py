"""Singular values of Jacobians, one algorithm per file, and the scores made of them."""

from jepa_jax.spectrum.methods import Method as Method
from jepa_jax.spectrum.scores import gaussian_score as gaussian_score
from jepa_jax.spectrum.scores import jepa_score as jepa_score
from jepa_jax.spectrum.spectrum import singular_values as singular_values
