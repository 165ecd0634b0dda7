"""A selection on disk: a list of keys for any tool, a Parquet table, and the rule that made it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jepa_jax._version import __version__
from jepa_jax.analysis.images import ImageReader
from jepa_jax.analysis.selection import Selection
from jepa_jax.analysis.table import ScoreTable
from jepa_jax.jobs import Records
from jepa_jax.paths import AnyPath, PathLike, to_path


def write(
    selection: Selection,
    table: ScoreTable,
    directory: PathLike,
    *,
    groups: np.ndarray | None = None,
    context: dict[str, Any] | None = None,
) -> AnyPath:
    """Write ``keys.txt``, ``selection.parquet`` and ``selection.json``; returns the directory.

    ``selection.parquet`` has ``key``, ``path`` (in full, of images that are files of their own; null where a name is
    no UTF-8), ``score``, and by the rule ``group``, ``weight``, ``p_value`` or ``rank_in_group``.
    """
    folder = to_path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    keys = [str(key) for key in table.keys[selection.rows]]
    columns: dict[str, Any] = {"key": keys}
    paths = _paths(table, keys)
    if paths is not None:
        columns["path"] = paths
    columns["score"] = table.scores["score"][selection.rows]
    if groups is not None:
        columns["group"] = [str(name) for name in groups[selection.rows]]
    (folder / "keys.txt").write_text("".join(f"{key}\n" for key in keys))
    with (folder / "selection.parquet").open("wb") as file:
        pq.write_table(pa.table(columns | selection.columns), file)
    about = {
        "jepa_jax": __version__,
        **selection.rule,
        "chosen_images": len(keys),
        "of_images": len(table),
        "encoder": table.encoder,
        "images_from": table.origin,
        "context": context or {},
    }
    (folder / "selection.json").write_text(json.dumps(about, indent=2) + "\n")
    return folder


def _paths(table: ScoreTable, keys: list[str]) -> list[str | None] | None:
    """The file of each image; None where all lie in archives, or no longer where they were scored."""
    reader = ImageReader.of(table)
    if reader is None or not isinstance(reader.source, Records):
        return None
    places = [reader.index.get(key) for key in keys]
    paths = [None if place is None else reader.source.path(place) for place in places]
    return paths if any(paths) else None
