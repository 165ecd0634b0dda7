"""Curation: which images to keep, by quantile, by p-value, evenly over density, or as the extremes of groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_jax.analysis import conformal
from jepa_jax.analysis.groups import rows_by_group
from jepa_jax.analysis.reference import ReferenceSplit
from jepa_jax.analysis.table import ScoreTable
from jepa_jax.errors import ArgumentError


@dataclass(frozen=True)
class Selection:
    """Chosen rows of a table, with what they were chosen by.

    Attributes:
        rows: [M] row numbers, in the order of the choice.
        rule: what was done, with its numbers: written beside the list.
        columns: more per chosen row, such as ``weight`` or ``p_value``: [M] each.
    """

    rows: np.ndarray
    rule: dict[str, Any]
    columns: dict[str, np.ndarray] = field(default_factory=dict)


def by_quantile(scores: np.ndarray, low: float, high: float) -> Selection:
    """Images with a score between two quantiles, ends included."""
    if not 0 <= low < high <= 1:
        raise ArgumentError(f"between={low} {high} must be two rising shares between 0 and 1.")
    bounds = np.quantile(scores, [low, high])
    rows = np.flatnonzero((scores >= bounds[0]) & (scores <= bounds[1]))
    return Selection(rows, {"rule": "quantile", "between": [low, high], "scores": bounds.tolist()})


def by_p_value(
    table: ScoreTable,
    reference: ReferenceSplit,
    rate: float,
    *,
    column: str = "score",
    side: conformal.Side = "low",
    false_discovery: bool = False,
    keep: bool = False,
    seed: int = 0,
) -> Selection:
    """Images that are unusual against a reference set, at a false-alarm rate that holds; or, with ``keep``, the rest.

    Args:
        table: images to judge.
        reference: images that calibrate; none of them may be judged.
        rate: see `conformal.flagged`.
        column: the score that is used.
        side: see `conformal.p_values`.
        false_discovery: see `conformal.flagged`.
        keep: choose the images that raise no alarm instead.
        seed: of the tie-breaking.

    Raises:
        ArgumentError: the table shares an image with the reference, or another encoder scored it.
    """
    reference.require_disjoint(table)
    if reference.table.encoder_id != table.encoder_id:
        raise ArgumentError(
            f"{reference.table.name!r} was scored by {reference.table.encoder}, {table.name!r} by {table.encoder}, "
            "or at another size or precision, or of other views: their scores do not compare."
        )
    for judged in (reference.table, table):
        require_column(judged, column)
    p = conformal.p_values(reference.table.scores[column], table.scores[column], side=side, seed=seed)
    alarms = conformal.flagged(p, rate, false_discovery=false_discovery)
    rows = np.flatnonzero(~alarms if keep else alarms)
    rule = {
        "rule": "conformal p-value",
        "unusual": f"{side} {column}",
        "rate": rate,
        "controls": "false discovery rate" if false_discovery else "false-alarm rate",
        "reference": len(reference),
        "chosen": "not flagged" if keep else "flagged",
    }
    return Selection(rows, rule, {"p_value": p[rows]})


def require_column(table: ScoreTable, column: str) -> None:
    """Raise ArgumentError where a table has no such scores, or not of all images."""
    if column not in table.scores:
        raise ArgumentError(f"column {column!r} is none of {', '.join(table.scores)} in {table.name!r}.")
    if missing := int(np.isnan(table.scores[column]).sum()):
        raise ArgumentError(
            f"column {column!r} has no value for {missing:,} of the {len(table):,} images of {table.name!r}; choose "
            "another one."
        )


def by_density(scores: np.ndarray, count: int, temperature: float | None = None, seed: int = 0) -> Selection:
    """A sample without replacement in which rare images are as welcome as common ones: weights 1 / p^(1/T).

    The score estimates log p, so the weight is exp(-score / T): T = 1 is 1 / p itself, larger is milder. Scores of
    an image spread over tens of nats, where T = 1 would take the rarest images in their order; so by default T
    is chosen such that half of the images count (Kish's effective sample size is N / 2). Drawn by Gumbel top-k,
    which is sampling one after another with probability proportional to the weights of those left.

    Args:
        scores: [N], nats.
        count: images to draw.
        temperature: T, or None to choose it.
        seed: of the draw.

    Returns:
        The draw, in its order, with ``weight``: each image's share of the total weight.
    """
    if not 1 <= count <= len(scores):
        raise ArgumentError(f"sample={count} must lie between 1 and the number of images, {len(scores)}.")
    if temperature is not None and not temperature > 0:
        raise ArgumentError(f"temperature={temperature} must be positive.")
    chosen = _balanced_temperature(scores) if temperature is None else temperature
    log_weight = -scores / chosen
    uniform = np.random.default_rng(seed).random(len(scores))
    gumbel = -np.log(-np.log(np.maximum(uniform, np.finfo(np.float64).tiny)))
    rows = np.argsort(-(log_weight + gumbel), kind="stable")[:count]
    weights = _normalised(log_weight)
    rule = {
        "rule": "density-balanced sample",
        "weight": "exp(-score / temperature)",
        "temperature": float(chosen),
        "effective_images": float(1 / np.sum(weights**2)),
        "seed": seed,
    }
    return Selection(rows, rule, {"weight": weights[rows]})


def by_extremes(
    scores: np.ndarray, *, rarest: int = 0, typical: int = 0, groups: np.ndarray | None = None
) -> Selection:
    """The k rarest and the k most typical images, of each group where there are groups; rarest first."""
    if rarest < 0 or typical < 0 or not rarest + typical:
        raise ArgumentError(f"rarest={rarest} and typical={typical}: one of them must be at least 1.")
    sets = {"": np.arange(len(scores))} if groups is None else dict(sorted(rows_by_group(groups).items()))
    rows, ranks = [], []
    for members in sets.values():
        ordered = members[np.argsort(scores[members], kind="stable")]
        picks = np.union1d(
            np.arange(min(rarest, len(ordered))), np.arange(max(0, len(ordered) - typical), len(ordered))
        )
        rows.append(ordered[picks])
        ranks.append(picks)
    rule = {"rule": "extremes", "rarest": rarest, "most_typical": typical, "groups": len(sets)}
    return Selection(np.concatenate(rows), rule, {"rank_in_group": np.concatenate(ranks)})


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def _balanced_temperature(scores: np.ndarray) -> float:
    """T at which the effective number of images is half of them: the effective number grows with T."""
    from scipy.optimize import brentq

    spread = float(np.std(scores))
    if not spread:
        return 1.0

    def excess(log_temperature: float) -> float:
        weights = _normalised(-scores / np.exp(log_temperature))
        return float(1 / np.sum(weights**2)) - len(scores) / 2

    low, high = np.log(spread) - 20, np.log(spread) + 20
    if not excess(low) < 0 < excess(high):
        return 1.0
    return float(np.exp(np.float64(brentq(excess, low, high))))  # pyright: ignore[reportArgumentType]
