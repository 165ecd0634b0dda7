"""Curation: which images to keep, by quantile, by p-value, evenly over density, or as the extremes of groups."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jepa_jax.analysis import conformal
from jepa_jax.analysis.dual import DUAL_TESTS, fit_dual
from jepa_jax.analysis.groups import rows_by_group
from jepa_jax.analysis.reference import ReferenceSplit
from jepa_jax.errors import ArgumentError
from jepa_jax.scored.table import ScoreTable


@dataclass(frozen=True)
class Selection:
    """Chosen rows of a table, with what they were chosen by.

    Attributes:
        rows: [M] row numbers, in the order of the choice.
        rule: what was done, with its numbers: written beside the list.
        columns: more per chosen row, such as ``weight`` or ``p_value``: [M] each.
        reasons: [M] why each was chosen, in words.
        cuts: scores at which being chosen ends, each with the rows that it decides about; none where a draw decides.
        notes: what whoever reads the list should know of it.
    """

    rows: np.ndarray
    rule: dict[str, Any]
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    cuts: tuple[tuple[float, np.ndarray], ...] = ()
    notes: tuple[str, ...] = ()


def by_quantile(scores: np.ndarray, low: float, high: float) -> Selection:
    """Images with a score between two quantiles, ends included."""
    if not 0 <= low < high <= 1:
        raise ArgumentError(f"between={low} {high} must be two rising shares between 0 and 1{_as_percent(low, high)}.")
    bounds = np.quantile(scores, [low, high])
    rows = np.flatnonzero((scores >= bounds[0]) & (scores <= bounds[1]))
    first, last = bounds.tolist()
    return Selection(
        rows,
        {"rule": "quantile", "between": [low, high], "scores": [first, last]},
        reasons=tuple(f"{score:.2f} lies between {first:.2f} and {last:.2f}" for score in scores[rows]),
        cuts=tuple((cut, np.arange(len(scores))) for cut, share in ((first, low), (last, high)) if 0 < share < 1),
    )


def _as_percent(low: float, high: float) -> str:
    """What to write instead, where two numbers are percent."""
    return f": for percent write {low / 100:g} {high / 100:g}" if 0 <= low < high <= 100 and high > 1 else ""


def by_p_value(
    table: ScoreTable,
    reference: ReferenceSplit,
    rate: float,
    *,
    column: str = "score",
    side: conformal.Side = "low",
    false_discovery: bool = False,
    seed: int = 0,
) -> Selection:
    """Images that are unusual against a reference set, at a false-alarm rate that holds.

    Args:
        table: images to judge.
        reference: images that calibrate; none of them may be judged.
        rate: see `conformal.flagged`.
        column: the score that is used; or ``dual`` or ``dual_one_sided``: score and effective rank together.
        side: see `conformal.p_values`; of a score, as the dual tests have theirs.
        false_discovery: see `conformal.flagged`.
        seed: of the tie-breaking.

    Raises:
        ArgumentError: the table shares an image with the reference, or another encoder scored it; or a dual test is
            asked for, and there are no singular values.
    """
    if column in DUAL_TESTS and side != "low":
        raise ArgumentError(f"side={side!r} does not go with {column}, which has its sides in its name; leave it out.")
    reference.require_disjoint(table)
    if reference.table.encoder_id != table.encoder_id:
        raise ArgumentError(
            f"{reference.table.name!r} was scored by {reference.table.encoder}, {table.name!r} by {table.encoder}, "
            "or at another size or precision, or of other views: their scores do not compare."
        )
    if column in DUAL_TESTS:
        p = fit_dual(reference, column).p_values(table, seed=seed)
    else:
        for judged in (reference.table, table):
            require_column(judged, column)
        p = conformal.p_values(reference.table.scores[column], table.scores[column], side=side, seed=seed)
    alarms = conformal.flagged(p, rate, false_discovery=false_discovery)
    rows = np.flatnonzero(alarms)
    rule = {
        "rule": "conformal p-value",
        "unusual": "score and effective_rank together" if column in DUAL_TESTS else f"{side} {column}",
        "test": column,
        "rate": rate,
        "controls": "false discovery rate" if false_discovery else "false-alarm rate",
        "reference": len(reference),
    }
    beyond = (
        np.empty(0) if column in DUAL_TESTS else table.scores[column][alarms]
    )  # of two numbers there is no one cut
    cut = () if not len(beyond) else ((float(beyond.max() if side == "low" else beyond.min()), np.arange(len(table))),)
    unusual = f"unusual by {column}" if column in DUAL_TESTS else f"unusually {side}"
    return Selection(
        rows,
        rule,
        {"p_value": p[rows]},
        reasons=tuple(f"{unusual}: p-value {value:.3g}" for value in p[rows]),
        cuts=cut,
        notes=_what_a_reference_can_tell(len(reference), len(table), rate, false_discovery),
    )


def _what_a_reference_can_tell(reference: int, images: int, rate: float, false_discovery: bool) -> tuple[str, ...]:
    """Where a request may return nothing, whatever the images are."""
    step = 1 / (reference + 1)
    if false_discovery:
        needed = int(np.ceil(images * step / rate))
        if needed <= 1:
            return ()
        return (
            f"{reference:,} reference images give p-values in steps of 1/{reference + 1:,}: at a false discovery rate "
            f"of {rate:g} about {needed:,} of the {images:,} images must lie beyond all of them before one raises an "
            "alarm.",
        )
    if step <= rate:
        return ()
    return (
        f"{reference:,} reference images give p-values in steps of 1/{reference + 1:,}, which is above the rate "
        f"{rate:g}: an image beyond all of them raises an alarm in {rate / step:.0%} of the cases, by a draw, and no "
        f"other ever does. {int(np.ceil(1 / rate)) - 1:,} reference images or more decide it.",
    )


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
        "effective_images": round(float(1 / np.sum(weights**2))),
        "seed": seed,
    }
    return Selection(
        rows,
        rule,
        {"weight": weights[rows]},
        reasons=tuple(f"drawn, with {weight:.3g} of all weight" for weight in weights[rows]),
    )


def by_extremes(
    scores: np.ndarray, *, rarest: int = 0, typical: int = 0, groups: np.ndarray | None = None
) -> Selection:
    """The k rarest and the k most typical images, of each group where there are groups; rarest first."""
    if rarest < 0 or typical < 0 or not rarest + typical:
        raise ArgumentError(f"rarest={rarest} and typical={typical}: one of them must be at least 1.")
    sets = {"": np.arange(len(scores))} if groups is None else dict(sorted(rows_by_group(groups).items()))
    rows, ranks, reasons, cuts, short = [], [], [], [], 0
    for name, members in sets.items():
        ordered = members[np.argsort(scores[members], kind="stable")]
        count = len(ordered)
        picks = np.union1d(np.arange(min(rarest, count)), np.arange(max(0, count - typical), count))
        rows.append(ordered[picks])
        ranks.append(picks)
        where = f" in {name}" if name else ""
        reasons += [_extreme(pick, count, rarest) + where for pick in picks.tolist()]
        short += count < rarest + typical
        cuts += [(float(scores[ordered[k - 1]]), members) for k in (rarest,) if 0 < k < count]
        cuts += [(float(scores[ordered[count - k]]), members) for k in (typical,) if 0 < k < count]
    asked = {name: count for name, count in (("rarest", rarest), ("typical", typical)) if count}
    rule = {"rule": "extremes", **asked, "groups": len(sets)}
    what = "group has" if short == 1 else "groups have"
    note = f"{short} {what} fewer than {rarest + typical} images: the rule takes all of them."
    return Selection(
        np.concatenate(rows),
        rule,
        {"rank_in_group": np.concatenate(ranks)},
        tuple(reasons),
        tuple(cuts),
        (note,) if short else (),
    )


def _extreme(rank: int, count: int, rarest: int) -> str:
    """A row's place among ``count``, counted from the end that it was taken for."""
    if rank < rarest:
        return f"number {rank + 1:,} of {count:,} from the rarest"
    return f"number {count - rank:,} of {count:,} from the most typical"


def others(selection: Selection, count: int) -> Selection:
    """What a rule leaves out, of ``count`` images, in the table's order: what stays where it found what has to go."""
    rows = np.setdiff1d(np.arange(count), selection.rows)
    return replace(
        selection,
        rows=rows,
        rule=selection.rule | {"chosen": "all others"},
        columns={},
        reasons=("left by the rule",) * len(rows),
    )


def unsure(selection: Selection, table: ScoreTable) -> np.ndarray:
    """Rows whose exact score may lie on the other side of a cut than their predicted one: [U], in order.

    An image whose interval is not known, since it is unlike what the predictions were calibrated on, is among them.
    """
    if table.intervals is None:
        return np.array([], int)
    low, high = table.intervals.T
    crosses = np.zeros(len(table), bool)
    for cut, rows in selection.cuts:
        crosses[rows] |= (low[rows] <= cut) & (high[rows] >= cut)
    return np.flatnonzero(crosses & table.predicted)


def what_may_be_missed(selection: Selection, table: ScoreTable) -> str | None:
    """What a selection by predicted scores may have missed, in words; None where all scores are exact."""
    predicted = int(table.predicted.sum())
    if not predicted:
        return None
    said = f"{predicted:,} of {len(table):,} scores are predicted from one forward pass"
    if not selection.cuts:
        return f"{said}; the weights of the draw are as uncertain as these."
    rows = unsure(selection, table)
    out = int(np.isin(rows, selection.rows).sum())
    if not len(rows):
        return f"{said}; no interval reaches across the cut, so that exact scores would choose the same images."
    return (
        f"{said}. The intervals of {len(rows):,} reach across the cut: exact scores may take {out:,} of the chosen "
        f"out and {len(rows) - out:,} others in."
    )


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
