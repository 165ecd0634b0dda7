"""The gallery: rarest, random and most typical images of every group, as small pictures inside the page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jepa_jax.analysis.groups import rows_by_group
from jepa_jax.analysis.report.charts import number
from jepa_jax.analysis.report.names import isolated
from jepa_jax.analysis.report.pictures import Shown
from jepa_jax.scored.table import ScoreTable


@dataclass(frozen=True)
class Tile:
    """One image: its picture as a data URI, or none where it cannot be read.

    Attributes:
        key: of the image.
        score: as text.
        percentile: of its rank.
        rank: how many images are rarer.
        picture: a data URI.
        alt: the image in words.
        notes: what else is to be said, such as how many near-duplicates it stands for.
    """

    key: str
    score: str
    percentile: float
    rank: int
    picture: str | None
    alt: str
    notes: str


@dataclass(frozen=True)
class Shelf:
    """A row of the gallery."""

    title: str
    tone: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Group:
    """A group of images with its shelves, and quantiles of its scores as shares of the whole range, per cent."""

    name: str
    slug: str
    count: str
    median: str
    strip: tuple[float, ...]
    shelves: tuple[Shelf, ...]


Choice = dict[str, tuple[np.ndarray, list[tuple[str, str, list[int]]]]]
"""Rows of a group, and what is shown of it: title, tone and rows of each shelf; by the group's name."""


def choose(
    table: ScoreTable, names: np.ndarray | None, alike: Sequence[np.ndarray], *, per_shelf: int, most_groups: int
) -> Choice:
    """What the gallery shows: all images, then every group, the largest first.

    Args:
        table: scored images.
        names: [N] group of each image, or None.
        alike: groups of near-duplicates; of each the rarest alone is shown, in any one shelf.
        per_shelf: tiles in a row.
        most_groups: groups shown beside all images.
    """
    groups = {f"All {table.noun}s": np.arange(len(table))}
    if names is not None:
        groups |= dict(list(rows_by_group(names).items())[:most_groups])
    family = np.arange(len(table))
    for members in alike:
        family[members] = members[0]
    scores = table.scores["score"]
    return {name: (rows, _shelves(scores, rows, family, per_shelf, name)) for name, rows in groups.items()}


def galleries(
    table: ScoreTable, choice: Choice, pictures: Mapping[int, Shown], alike: Sequence[np.ndarray], prefix: str
) -> list[Group]:
    """The groups as the page shows them.

    Args:
        table: scored images.
        choice: of `choose`.
        pictures: of the rows that have one.
        alike: groups of near-duplicates.
        prefix: of the groups' anchors.
    """
    scores = table.scores["score"]
    rank = np.empty(len(table), int)
    rank[np.argsort(scores, kind="stable")] = np.arange(len(table))
    low, high = float(scores.min()), float(scores.max())
    others = {int(row): len(members) - 1 for members in alike for row in members}

    def tile(row: int) -> Tile:
        score, percentile = number(float(scores[row])), (rank[row] + 0.5) / len(table) * 100
        shown, notes = pictures.get(row), []
        if row in others:
            notes.append(f"and {others[row]} near-duplicate{'s' * (others[row] != 1)}")
        notes += [] if shown is None else shown.faults
        if table.predicted[row]:
            notes.append("predicted")
        return Tile(
            str(table.keys[row]),
            score,
            round(float(percentile), 2),
            int(rank[row]),
            None if shown is None else shown.uri,
            f"{isolated(str(table.keys[row]))}, score {score}, percentile {percentile:.1f}",
            ", ".join(notes),
        )

    built = []
    for i, (name, (rows, shelves)) in enumerate(choice.items()):
        quantiles = np.quantile(scores[rows], [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
        built.append(
            Group(
                name,
                f"{prefix}-{i}",
                number(len(rows), 0),
                number(float(quantiles[3])),
                tuple(round(100 * float(q - low) / ((high - low) or 1), 2) for q in quantiles),
                tuple(Shelf(title, tone, tuple(map(tile, picked))) for title, tone, picked in shelves),
            )
        )
    return built


def _shelves(
    scores: np.ndarray, rows: np.ndarray, family: np.ndarray, count: int, name: str
) -> list[tuple[str, str, list[int]]]:
    """Rows of the three shelves; a small group shares its images out instead of repeating them."""
    ordered = rows[np.argsort(scores[rows], kind="stable")]
    _, first = np.unique(family[ordered], return_index=True)
    ordered = ordered[np.sort(first)]
    if len(ordered) < 3:
        return [("All, rarest first", "middle", ordered.tolist())]
    count = min(count, max(1, len(ordered) // 3))
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    middle = ordered[count : len(ordered) - count]
    random = np.random.default_rng(seed).choice(middle, min(count, len(middle)), replace=False)
    return [
        ("Rarest", "rare", ordered[:count].tolist()),
        ("Random", "middle", random.tolist()),
        ("Most typical", "typical", ordered[::-1][:count].tolist()),
    ]
