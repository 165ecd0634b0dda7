"""The small pictures within a page, and what is the matter with each: read once, for gallery and list alike."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jepa_jax.analysis.report.looks import faults_of
from jepa_jax.scored.image_reader import ImageReader
from jepa_jax.scored.notebook_gallery import data_uri
from jepa_jax.scored.table import ScoreTable

SIDE = 240
"""Pixels of a picture, at most: it is shown at half of that in rows, and whole when it is enlarged."""

FRAME_SIDE = 120
"""Of each of a clip's frames, which stand in a row."""

WEBP_QUALITY = 55
"""Such a picture takes about 6 kB."""

MOST_BYTES = 11_000_000
"""Of all pictures of a page together: with the rows' text it stays below 20 MB."""


@dataclass(frozen=True)
class Shown:
    """One picture.

    Attributes:
        uri: it, as an address that holds it.
        faults: words of `looks.RULES`; of a clip none.
        path: the file, where it is one of its own.
    """

    uri: str
    faults: tuple[str, ...]
    path: str | None


def read_pictures(
    reader: ImageReader | None, table: ScoreTable, rows: Sequence[int], budget: int, workers: int = 2
) -> dict[int, Shown]:
    """Pictures of some rows, the first ones first, until their bytes are spent; unreadable ones are left out.

    Args:
        reader: of the pictures.
        table: whose rows.
        rows: in the order of their importance.
        budget: bytes.
        workers: threads.
    """
    found: dict[int, Shown] = {}
    if reader is None:
        return found
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(rows), 64):
            if budget <= 0:
                break
            some = rows[start : start + 64]
            for row, shown in zip(some, pool.map(lambda row: _read(reader, str(table.keys[row])), some), strict=True):
                if shown is not None:
                    found[row] = shown
                    budget -= len(shown.uri)
    return found


def _read(reader: ImageReader, key: str) -> Shown | None:
    if reader.recipe.frames is not None:
        strip = reader.thumbnail(key, FRAME_SIDE)
        return None if strip is None else Shown(data_uri(strip, WEBP_QUALITY), (), reader.path(key))
    opened = reader.sized(key, 2 * SIDE)
    if opened is None:
        return None
    picture, size = opened
    faults = faults_of(picture, reader.recipe.crop, size)
    picture.thumbnail((SIDE, SIDE))
    return Shown(data_uri(picture, WEBP_QUALITY), faults, reader.path(key))
