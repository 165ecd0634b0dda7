"""From the scores of a batch's inputs to one row per record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jepa_jax.images.decoding import InputRecipe
from jepa_jax.images.views import combine_views
from jepa_jax.numerics.precision import LEVELS
from jepa_jax.scoring.readings import ScoreResult

RecordScores = dict[str, np.ndarray]
"""One record's values by column."""

SCORES = ("score", "listing_score", "gaussian_score")


def record_columns(
    result: ScoreResult, records: int, recipe: InputRecipe, columns: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The table's columns, an array [records, ...] each.

    Args:
        result: of a batch that begins with the inputs of all records, one record after another; what fills it up
            is left out.
        records: how many.
        recipe: what was scored of each.
        columns: optional columns, which are of the image itself.

    Returns:
        The table's columns, and ``clipped``, by which `why_no_score` judges.
    """
    found = _of_records(result, records, recipe, columns)
    found["precision"] = np.array(LEVELS)[found.pop("level")]
    found["log_volume_rank"] = np.full(records, result.log_volume_rank, np.int32)
    for number, of_layer in result.layers.items():
        layer = _of_records(of_layer, records, recipe, ())
        known = (layer["clipped"] == 0) & np.isfinite(layer["score"]) & np.isfinite(layer["score_error"])
        for name, column in zip(("score", "score_error"), layer_columns(number), strict=True):
            found[column] = np.where(known, layer[name], np.nan)
    return found


def layer_columns(number: int) -> tuple[str, str]:
    """What the score of a layer and its error are called; NaN where `why_no_score` would say why there is none."""
    return f"score_layer_{number}", f"score_error_layer_{number}"


def is_layer_score(column: str) -> bool:
    """Whether a column is the score of a layer."""
    return re.fullmatch(r"score_layer_\d+", column) is not None


def _of_records(
    result: ScoreResult, records: int, recipe: InputRecipe, columns: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The columns of one layer, or of the encoder itself; ``level`` is not named yet."""
    inputs = {name: getattr(result, name) for name in (*SCORES, "score_error", "clipped", "level", *columns)}
    if not result.singular_values.shape[-1]:
        del inputs["listing_score"]
    arrays = {name: np.asarray(values) for name, values in inputs.items() if values is not None}
    arrays = {
        name: values[: records * recipe.count].reshape(records, recipe.count, *values.shape[1:])
        for name, values in arrays.items()
    }
    found = {name: arrays.pop(name)[:, 0] for name in columns}
    if recipe.views is None:
        found |= {name: values[:, 0] for name, values in arrays.items()}
    else:
        found |= _combined({name: values[:, int(recipe.plain) :] for name, values in arrays.items()})
    return found


def why_no_score(row: Mapping[str, Any], eps: float) -> str | None:
    """Why a record's ``score`` is none; None where it is one.

    Args:
        row: of `record_columns`.
        eps: the clip of the singular values.
    """
    score, error, clipped = row["score"], row["score_error"], row["clipped"]
    if not np.isfinite(score):
        return f"the score is {score}: the encoder's output or Jacobian overflows, or vanishes"
    if clipped:
        return (
            f"its embedding does not change with the image in every direction: {clipped} of {row['log_volume_rank']} "
            f"singular values lie below eps={eps:g}, at which the score would clip them"
        )
    if not np.isfinite(error):
        return f"the score may be off by {error} nats: the encoder's Jacobian is out of the range of numbers"
    return None


def _combined(views: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns [R] from those of V views [R, V]."""
    found = {name: combine_views(views[name]) for name in SCORES if name in views}
    score = found["score"]
    with np.errstate(invalid="ignore"):  # of a view whose error is infinite and whose weight is zero
        error = np.sum(score.weights * views["score_error"], axis=1)
    return {name: result.score for name, result in found.items()} | {
        "views_standard_error": score.standard_error,
        "effective_views": score.effective_views,
        # A small error of one view moves the combination by that view's weight: together, by this much at most.
        "score_error": error,
        "clipped": views["clipped"].max(axis=1),
        "level": views["level"].min(axis=1),  # the coarsest
    }
