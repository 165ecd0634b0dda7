"""The gallery: rarest, random and most typical images of every group, as small pictures inside the page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from jepa_jax.analysis.groups import rows_by_group
from jepa_jax.analysis.images import ImageReader
from jepa_jax.analysis.report.charts import number
from jepa_jax.analysis.report.names import isolated
from jepa_jax.analysis.table import ScoreTable

THUMBNAIL_SIDE = 160
FRAME_SIDE = 96
"""Of each of a clip's frames, which stand in a row."""

WEBP_QUALITY = 60
"""A thumbnail takes about 4 kB."""


@dataclass(frozen=True)
class Tile:
    """One image: its thumbnail as a data URI, or none where it cannot be read."""

    key: str
    score: str
    percentile: float
    picture: str | None
    alt: str


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


def galleries(
    table: ScoreTable,
    names: np.ndarray | None,
    reader: ImageReader | None,
    *,
    per_shelf: int,
    most_groups: int,
    prefix: str,
    workers: int = 2,
) -> list[Group]:
    """All images, then every group, the largest first.

    Args:
        table: scored images.
        names: [N] group of each image, or None.
        reader: of the pictures; without it the gallery shows keys alone.
        per_shelf: tiles in a row.
        most_groups: groups shown beside all images.
        prefix: of the groups' anchors.
        workers: threads that make thumbnails.
    """
    groups = {"All images": np.arange(len(table))}
    if names is not None:
        groups |= dict(list(rows_by_group(names).items())[:most_groups])
    scores = table.scores["score"]
    order = np.argsort(scores, kind="stable")
    percentile = np.empty(len(table))
    percentile[order] = (np.arange(len(table)) + 0.5) / len(table) * 100
    chosen = {name: _choose(scores, rows, per_shelf, name) for name, rows in groups.items()}
    wanted = sorted({int(row) for shelves in chosen.values() for _, _, rows in shelves for row in rows})
    pictures = _pictures(reader, table, wanted, workers)
    low, high = float(scores.min()), float(scores.max())

    def tile(row: int) -> Tile:
        score = number(float(scores[row]))
        return Tile(
            str(table.keys[row]),
            score,
            round(float(percentile[row]), 2),
            pictures[row],
            f"{isolated(str(table.keys[row]))}, score {score}, percentile {percentile[row]:.1f}",
        )

    built = []
    for i, (name, rows) in enumerate(groups.items()):
        quantiles = np.quantile(scores[rows], [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
        built.append(
            Group(
                name,
                f"{prefix}-{i}",
                number(len(rows), 0),
                number(float(quantiles[3])),
                tuple(round(100 * float(q - low) / ((high - low) or 1), 2) for q in quantiles),
                tuple(Shelf(title, tone, tuple(map(tile, picked))) for title, tone, picked in chosen[name]),
            )
        )
    return built


def _choose(scores: np.ndarray, rows: np.ndarray, count: int, name: str) -> list[tuple[str, str, list[int]]]:
    """Rows of the three shelves; a small group shares its images out instead of repeating them."""
    ordered = rows[np.argsort(scores[rows], kind="stable")]
    count = min(count, max(1, len(rows) // 3)) if len(rows) >= 3 else len(rows)
    if len(rows) < 3:
        return [("All, rarest first", "middle", ordered.tolist())]
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    middle = ordered[count : len(ordered) - count]
    random = np.random.default_rng(seed).choice(middle, min(count, len(middle)), replace=False)
    return [
        ("Rarest", "rare", ordered[:count].tolist()),
        ("Random", "middle", random.tolist()),
        ("Most typical", "typical", ordered[::-1][:count].tolist()),
    ]


def _pictures(
    reader: ImageReader | None, table: ScoreTable, rows: Sequence[int], workers: int
) -> dict[int, str | None]:
    if reader is None:
        return dict.fromkeys(rows)
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(rows, pool.map(lambda row: _data_uri(reader, str(table.keys[row])), rows), strict=True))


def _data_uri(reader: ImageReader, key: str) -> str | None:
    picture = reader.thumbnail(key, THUMBNAIL_SIDE if reader.shown == 1 else FRAME_SIDE)
    if picture is None:
        return None
    sink = io.BytesIO()
    picture.save(sink, "WEBP", quality=WEBP_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(sink.getvalue()).decode()
