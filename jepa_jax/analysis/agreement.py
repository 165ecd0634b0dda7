"""Do models agree on what is rare? Rank correlation, and the overlap of the extremes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jepa_jax.analysis.metrics import spearman
from jepa_jax.scored.table import ScoreTable, shared_noun

EXTREME_SHARE = 0.05
"""Share of the images that counts as an extreme."""


@dataclass(frozen=True)
class Agreement:
    """Two models on the images, or clips, that both scored.

    Attributes:
        first, second: names of the tables.
        count: of what both scored.
        spearman: rank correlation of the scores.
        rare_overlap, typical_overlap: share of one's most extreme 5% that is among the other's; chance is 5%.
        ranks: [count, 2] percentiles of the score, for a plot.
        keys: [count] of these.
        noun: what these are, in one word.
    """

    first: str
    second: str
    count: int
    spearman: float
    rare_overlap: float
    typical_overlap: float
    ranks: np.ndarray
    keys: tuple[str, ...]
    noun: str


def agreements(tables: Sequence[ScoreTable]) -> list[Agreement]:
    """Every pair of tables by different encoders over shared images, by origin and key."""
    pairs = [(a, b) for i, a in enumerate(tables) for b in tables[i + 1 :]]
    return [
        found
        for a, b in pairs
        if a.encoder_id != b.encoder_id and a.origin == b.origin and (found := agreement(a, b)) is not None
    ]


def agreement(first: ScoreTable, second: ScoreTable) -> Agreement | None:
    """Two tables compared over the keys that they share; None where these are fewer than three."""
    from scipy.stats import rankdata

    shared, rows_a, rows_b = np.intersect1d(
        first.keys.astype(str), second.keys.astype(str), assume_unique=True, return_indices=True
    )
    if len(shared) < 3:
        return None
    a, b = first.scores["score"][rows_a], second.scores["score"][rows_b]
    size = max(1, round(EXTREME_SHARE * len(shared)))

    def overlap(sign: int) -> float:
        return len(np.intersect1d(np.argsort(sign * a)[:size], np.argsort(sign * b)[:size])) / size

    return Agreement(
        first.name,
        second.name,
        len(shared),
        spearman(a, b),
        overlap(1),
        overlap(-1),
        np.stack([rankdata(a), rankdata(b)], axis=1) / len(shared) * 100,
        tuple(shared.tolist()),
        shared_noun([first, second]),
    )
