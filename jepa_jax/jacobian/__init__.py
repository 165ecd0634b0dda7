"""Jacobians: forward mode, row blocks of reverse mode, and a check that the backend can be trusted."""

from jepa_jax.jacobian.backend_check import check_backend as check_backend
from jepa_jax.jacobian.backend_check import require_sound_backend as require_sound_backend
from jepa_jax.jacobian.jacobian import jacobian as jacobian
