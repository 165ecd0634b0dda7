"""The list of all images: what the page's script searches, sorts, ticks and exports, packed small."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jepa_jax.analysis.report.pictures import Shown
from jepa_jax.errors import printable
from jepa_jax.scored.table import ScoreTable

MOST_LISTED = 300_000
"""Rows in the list; of more the rarest and the most typical, half of each."""

MOST_GROUPS = 500
"""Groups that the list can be narrowed to."""


@dataclass(frozen=True)
class Listing:
    """One set's list.

    Attributes:
        name: of the set.
        data: JSON, deflated, in base64.
        listed: how many rows it has.
        total: how many the set has.
        intervals: whether some scores are predicted and have an interval.
    """

    name: str
    data: str
    listed: int
    total: int
    intervals: bool


def listing(
    table: ScoreTable,
    pictures: Mapping[int, Shown],
    in_gallery: set[int],
    alike: Sequence[np.ndarray],
    faults: Mapping[int, Sequence[str]],
    names: np.ndarray | None,
    frames: int = 1,
) -> Listing:
    """Everything that is known of each row, the rarest first.

    Args:
        table: scored images.
        pictures: of the rows that have one.
        in_gallery: rows whose picture the page has already.
        alike: groups of near-duplicates.
        faults: of the rows that were looked at.
        names: [N] group of each image, or None.
        frames: side by side in a picture: of a clip some.
    """
    order = np.argsort(table.scores["score"], kind="stable")
    rank = np.empty(len(table), int)
    rank[order] = np.arange(len(table))
    kept = order
    if len(order) > MOST_LISTED:
        kept = np.concatenate([order[: MOST_LISTED // 2], order[-MOST_LISTED // 2 :]])
    place = {int(row): i for i, row in enumerate(kept)}
    keys = [str(table.keys[row]) for row in kept]
    shown = [printable(key) for key in keys]
    facts: dict[str, Any] = {
        "total": len(table),
        "frames": frames,
        "keys": shown,
        "raw": {i: key for i, (key, text) in enumerate(zip(keys, shown, strict=True)) if key != text},
        "scores": _numbers(table.scores["score"][kept]),
        "ranks": rank[kept].tolist() if len(kept) < len(order) else None,
        "alike": [[place[int(row)] for row in group if int(row) in place] for group in alike],
        "faults": _by_word(faults, place),
        "pictures": {place[row]: p.uri for row, p in pictures.items() if row in place and row not in in_gallery},
        "paths": {place[row]: p.path for row, p in pictures.items() if row in place and p.path is not None},
    }
    if table.intervals is not None:
        facts["low"], facts["high"] = (_numbers(table.intervals[kept, end]) for end in (0, 1))
        facts["predicted"] = np.flatnonzero(table.predicted[kept]).tolist()
    if table.unfamiliar is not None:
        facts["unfamiliar"] = np.flatnonzero(table.unfamiliar[kept]).tolist()
    if names is not None:
        groups, codes = np.unique(names[kept].astype(str), return_inverse=True)
        if len(groups) <= MOST_GROUPS:
            facts |= {"groups": [printable(str(name)) for name in groups], "group": codes.tolist()}
    text = json.dumps(facts, separators=(",", ":"), allow_nan=False)
    data = base64.b64encode(zlib.compress(text.encode(), 6)).decode()
    return Listing(table.name, data, len(kept), len(table), table.intervals is not None)


def _numbers(values: np.ndarray) -> list[float | None]:
    """To a thousandth of a nat; what is not finite as None."""
    return [round(float(value), 3) if math.isfinite(value) else None for value in values]


def _by_word(faults: Mapping[int, Sequence[str]], place: Mapping[int, int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, words in faults.items():
        if row in place:
            for word in words:
                found.setdefault(word, []).append(place[row])
    return found
