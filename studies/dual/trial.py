"""Regrets, false alarms and controls, from tables alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binom, norm

from jepa_jax.analysis.dual import DUAL_TESTS, DualTest, Fit, fit_points, table_coordinates
from jepa_jax.analysis.metrics import auroc, separations
from jepa_jax.analysis.reference import ReferenceSplit
from jepa_jax.scored.table import ScoreTable

SPLITS = 10
DRAWS = 200
RATES = (0.01, 0.05, 0.1)
BAR = 0.03
PARTS = ("score", "effective_rank")


def smaller_p_value(points: np.ndarray, fit: Fit) -> np.ndarray:
    """The first idea: the smaller of the two one-sided p-values, by the normal law."""
    return -norm.logcdf(((points - fit.centre) / fit.spread).min(axis=-1))


def mahalanobis(points: np.ndarray, fit: Fit) -> np.ndarray:
    """The squared Mahalanobis distance."""
    z, r = (points - fit.centre) / fit.spread, fit.correlation
    return (z[..., 0] ** 2 - 2 * r * z[..., 0] * z[..., 1] + z[..., 1] ** 2) / (1 - r**2)


STATISTICS: dict[str, Callable[[np.ndarray, Fit], np.ndarray]] = {
    **DUAL_TESTS,
    "smaller_p_value": smaller_p_value,
    "mahalanobis": mahalanobis,
}


def pair(inside: np.ndarray, outside: np.ndarray, splits: int = SPLITS) -> dict[str, Any]:
    """AUROC of the parts and of every statistic, means over splits: coordinates [N, 2], [M, 2]."""
    found: dict[str, list[float]] = {name: [] for name in (*PARTS, *STATISTICS)}
    for seed in range(splits):
        reference, judged = halves(inside, seed)
        fit = fit_points(reference)
        for column, name in enumerate(PARTS):
            found[name].append(auroc(judged[:, column], outside[:, column]))
        for name, unusual in STATISTICS.items():
            found[name].append(auroc(-unusual(judged, fit), -unusual(outside, fit)))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    better = np.maximum(found[PARTS[0]], found[PARTS[1]])
    regrets = {name: np.array(found[name]) - better for name in found}
    return {
        "auroc": means,
        "regret": {name: float(values.mean()) for name, values in regrets.items()},
        "worst_split": {name: float(values.min()) for name, values in regrets.items()},
        "interval": interval(inside, outside),
    }


def interval(inside: np.ndarray, outside: np.ndarray) -> dict[str, list[float]]:
    """95% bootstrap intervals of the first split."""
    reference, judged = halves(inside, 0)
    fit = fit_points(reference)
    values_in = {name: judged[:, i] for i, name in enumerate(PARTS)}
    values_out = {name: outside[:, i] for i, name in enumerate(PARTS)}
    values_in |= {name: -f(judged, fit) for name, f in STATISTICS.items()}
    values_out |= {name: -f(outside, fit) for name, f in STATISTICS.items()}
    return {name: [s.auroc.low, s.auroc.high] for name, s in separations(values_in, values_out).items()}


def halves(points: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random half as the reference, and the rest."""
    order = np.random.default_rng(seed).permutation(len(points))
    return points[order[: len(points) // 2]], points[order[len(points) // 2 :]]


def false_alarms(sets: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    """Shares of p-values up to each rate, over draws of a reference and one judged image of the same set."""
    nobody = ReferenceSplit(ScoreTable("none", "/none", np.array([], object), {}), frozenset())
    p = []
    for points in sets.values():
        for draw in range(DRAWS):
            reference, rest = halves(points, draw)
            p.append(DualTest.of_points(reference, nobody, name).p_values_at(rest[:1], seed=draw)[0])
    rows = {}
    for rate in RATES:
        low, high = binom.interval(0.99, len(p), rate)
        share = float(np.mean(np.array(p) <= rate))
        rows[str(rate)] = {"share": share, "interval": [low / len(p), high / len(p)]}
        rows[str(rate)]["holds"] = bool(low <= share * len(p) <= high)
    return {"draws": len(p), "rates": rows}


def holds(pairs: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """On how many pairs each statistic is within `BAR` of the better part, and its worst regret."""
    names = (*PARTS, *STATISTICS)
    return {
        name: {
            "holds": sum(row["regret"][name] >= -BAR for row in pairs.values()),
            "of": len(pairs),
            "worst": min(row["regret"][name] for row in pairs.values()),
            "mean": float(np.mean([row["regret"][name] for row in pairs.values()])),
        }
        for name in names
    }


def controls(points: np.ndarray) -> dict[str, Any]:
    """Halves of one set against each other, and random numbers: every AUROC should be near .5."""
    first, second = halves(points, 99)
    rng = np.random.default_rng(5)
    return {
        "two halves of one set": pair(first, second)["auroc"],
        "random numbers": pair(rng.standard_normal((300, 2)), rng.standard_normal((300, 2)))["auroc"],
    }


def points_of(table: ScoreTable) -> np.ndarray:
    """Coordinates [N, 2]."""
    return table_coordinates(table)
