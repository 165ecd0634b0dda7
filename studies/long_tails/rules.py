"""What one encoder makes of every kind of picture: the mean of each of its readings."""

from __future__ import annotations

from typing import Any

import numpy as np

from jepa_jax.analysis.dual import coordinates, fit_points, two_sided
from jepa_jax.analysis.views import score_views
from jepa_jax.encoders import Encoder
from jepa_jax.encoders.drawn import random_encoder
from jepa_jax.images.views import ViewRecipe
from jepa_jax.scoring.batches import score_steps
from jepa_jax.studies.controlled import encoder_spec, recipe, trained_encoder
from jepa_jax.training.whitening import standardized
from studies.long_tails.kinds import Kinds

VIEWS = 4
AS_IN_TRAINING = ViewRecipe((0.3, 1.0), 0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4)
"""The views of `jepa_jax.studies.controlled.recipe`, as scores draw them."""


def means_of(name: str, kinds: Kinds, seed: int, steps: int) -> dict[str, np.ndarray]:
    """Train one of the protocol's encoders and take the means [C] of its readings over the pictures of each kind."""
    if name == "untrained":
        encoder = random_encoder(encoder_spec(kinds.size), seed)
    else:
        shown = kinds.training(seed)["reference" if name == "reference" else "pool"]
        config = recipe(kinds.size, seed, 2 * steps if name == "longer" else steps)
        encoder = trained_encoder(config, shown)
    judged = kinds.judged(seed)
    found = readings(encoder, judged)
    if name == "pool":
        found["views"] = score_views(encoder, list(judged), VIEWS, seed=seed, recipe=AS_IN_TRAINING).score
        fit = fit_points(readings(encoder, kinds.standard(seed))["coordinates"])
        found["dual"] = -two_sided(found["coordinates"], fit)
    del found["coordinates"]
    return {rule: values.reshape(kinds.count, -1).mean(axis=1) for rule, values in found.items()}


def readings(encoder: Encoder, images: np.ndarray) -> dict[str, np.ndarray]:
    """``score``, ``gaussian_score`` [N], and the dual test's ``coordinates`` [N, 2], of uint8 images [N, S, S, 3]."""
    result: Any = score_steps(encoder, standardized(encoder, images))
    values = np.asarray(result.singular_values)[:, : result.log_volume_rank]
    score = np.asarray(result.score, np.float64)
    return {
        "score": score,
        "gaussian_score": np.asarray(result.gaussian_score, np.float64),
        "coordinates": coordinates(score, values),
    }
