"""JEPA-SCORE in JAX: data density from the Jacobian spectra of pretrained encoders."""

from jepa_jax._log_level import LOG_LEVEL as LOG_LEVEL
from jepa_jax._version import __version__ as __version__
from jepa_jax.encoders import Encoder as Encoder
from jepa_jax.errors import ArgumentError as ArgumentError
from jepa_jax.errors import BackendError as BackendError
from jepa_jax.errors import CheckpointError as CheckpointError
from jepa_jax.errors import ImageError as ImageError
from jepa_jax.errors import JepaJaxError as JepaJaxError
from jepa_jax.errors import JobError as JobError
from jepa_jax.errors import OutOfMemoryError as OutOfMemoryError
from jepa_jax.jacobian import jacobian as jacobian
from jepa_jax.loading import load_encoder as load_encoder
from jepa_jax.scoring.compute import score_fn as score_fn
from jepa_jax.scoring.gradient import score_gradient as score_gradient
from jepa_jax.scoring.noise import calibrate_noise as calibrate_noise
from jepa_jax.scoring.readings import ScoreResult as ScoreResult
from jepa_jax.scoring.scorer import Scorer as Scorer
from jepa_jax.scoring.scorer import score as score
from jepa_jax.spectrum import jepa_score as jepa_score
from jepa_jax.spectrum import singular_values as singular_values
