"""JEPA-SCORE in JAX: data density from the Jacobian spectra of pretrained encoders.

What needs JAX is imported when it is first asked for: a process that only decodes images never loads it.
"""

from typing import TYPE_CHECKING

from jepa_jax._lazy import import_lazily as _import_lazily
from jepa_jax._log_level import LOG_LEVEL as LOG_LEVEL
from jepa_jax._version import __version__ as __version__
from jepa_jax.errors import ArgumentError as ArgumentError
from jepa_jax.errors import BackendError as BackendError
from jepa_jax.errors import CheckpointError as CheckpointError
from jepa_jax.errors import ImageError as ImageError
from jepa_jax.errors import JepaJaxError as JepaJaxError
from jepa_jax.errors import JobError as JobError
from jepa_jax.errors import OutOfMemoryError as OutOfMemoryError

if TYPE_CHECKING:  # the table below, for editors and type checkers
    from jepa_jax.amortised import Amortised as Amortised
    from jepa_jax.amortised import fit_amortised as fit_amortised
    from jepa_jax.batch_scorer import BatchScorer as BatchScorer
    from jepa_jax.encoders import Encoder as Encoder
    from jepa_jax.encoders.own import OwnEncoder as OwnEncoder
    from jepa_jax.jacobian import jacobian as jacobian
    from jepa_jax.layers.layer_norm import layer_norm_null_directions as layer_norm_null_directions
    from jepa_jax.loading import load_encoder as load_encoder
    from jepa_jax.scored.score_folder import score_folder as score_folder
    from jepa_jax.scored.scored_images import ScoredImages as ScoredImages
    from jepa_jax.scoring.compute import score_fn as score_fn
    from jepa_jax.scoring.gradient import score_gradient as score_gradient
    from jepa_jax.scoring.noise import measure_noise as measure_noise
    from jepa_jax.scoring.readings import ScoreResult as ScoreResult
    from jepa_jax.scoring.scorer import Scorer as Scorer
    from jepa_jax.scoring.scorer import score as score
    from jepa_jax.spectrum import jepa_score as jepa_score
    from jepa_jax.spectrum import singular_values as singular_values

_import_lazily(
    __name__,
    {
        "score_folder": "jepa_jax.scored.score_folder",
        "ScoredImages": "jepa_jax.scored.scored_images",
        "BatchScorer": "jepa_jax.batch_scorer",
        "Amortised": "jepa_jax.amortised",
        "fit_amortised": "jepa_jax.amortised",
        "Encoder": "jepa_jax.encoders",
        "OwnEncoder": "jepa_jax.encoders.own",
        "jacobian": "jepa_jax.jacobian",
        "layer_norm_null_directions": "jepa_jax.layers.layer_norm",
        "load_encoder": "jepa_jax.loading",
        "score_fn": "jepa_jax.scoring.compute",
        "score_gradient": "jepa_jax.scoring.gradient",
        "measure_noise": "jepa_jax.scoring.noise",
        "ScoreResult": "jepa_jax.scoring.readings",
        "Scorer": "jepa_jax.scoring.scorer",
        "score": "jepa_jax.scoring.scorer",
        "jepa_score": "jepa_jax.spectrum",
        "singular_values": "jepa_jax.spectrum",
    },
)
