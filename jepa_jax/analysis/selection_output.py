"""A selection on disk: a list of keys for any tool, a Parquet table, and the rule that made it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from jepa_jax._version import __version__
from jepa_jax.analysis.selection import Selection, unsure, what_may_be_missed
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.jobs import Records
from jepa_jax.parquet import parquet_bytes
from jepa_jax.paths import AnyPath, PathLike, make_output, remove, require_named, to_path, write_whole
from jepa_jax.scored.image_reader import ImageReader
from jepa_jax.scored.table import ScoreTable

UNSURE = "unsure.txt"
FILES = ("keys.txt", "selection.parquet", "selection.json", UNSURE)
"""What a selection is made of."""


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
    no UTF-8), ``score``, by the rule ``group``, ``weight``, ``p_value`` or ``rank_in_group``, and ``reason``. Where
    scores are predicted, ``unsure.txt`` has the keys whose exact score may lie on the other side of the cut.

    Raises:
        ArgumentError: the directory holds a selection already.
        JobError: it cannot be written; nothing of the selection is left then.
    """
    require_named(directory, "output")
    folder = to_path(directory)
    require_new(folder)
    make_output(folder)
    keys = [str(key) for key in table.keys[selection.rows]]
    columns: dict[str, Any] = {"key": keys}
    paths = _paths(table, keys)
    if paths is not None:
        columns["path"] = paths
    columns["score"] = table.scores["score"][selection.rows]
    if groups is not None:
        columns["group"] = [str(name) for name in groups[selection.rows]]
    columns |= selection.columns | {"reason": list(selection.reasons)}
    contents = {"selection.parquet": parquet_bytes(pa.table(columns))}
    doubtful = unsure(selection, table)
    if len(doubtful):
        contents[UNSURE] = _lines(str(table.keys[row]) for row in doubtful)
    about = {
        "jepa_jax": __version__,
        **selection.rule,
        "notes": list(notes_of(selection, table)),
        "chosen_images": len(keys),
        "of_images": len(table),
        "encoder": table.encoder,
        "images_from": table.origin,
        "context": context or {},
    }
    contents["selection.json"] = (json.dumps(about, indent=2) + "\n").encode()
    contents["keys.txt"] = _lines(keys)  # last: with it the selection is whole
    try:
        for name, content in contents.items():
            write_whole(folder / name, content)
    except JobError:
        for name in contents:  # half a selection would pass for one, and the same command be refused for it
            remove(folder / name)
        raise
    return folder


def _lines(keys: Iterable[str]) -> bytes:
    return "".join(f"{key}\n" for key in keys).encode()


def require_new(folder: AnyPath) -> None:
    """Refuse a directory that holds a selection already.

    Raises:
        ArgumentError: it does.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise ArgumentError(f"output {folder} holds {there[0]} of an earlier selection; name a new directory.")


def notes_of(selection: Selection, table: ScoreTable) -> tuple[str, ...]:
    """What is to be known of a selection, and of the scores that it was made by."""
    missed = what_may_be_missed(selection, table)
    every = len(selection.rows) == len(table)
    return (
        *selection.notes,
        *([f"all {len(table):,} images are listed: nothing is left out."] if every else []),
        *([] if missed is None else [missed]),
    )


def _paths(table: ScoreTable, keys: list[str]) -> list[str | None] | None:
    """The file of each image; None where all lie in archives, or no longer where they were scored."""
    reader = ImageReader.of(table)
    if reader is None or not isinstance(reader.source, Records):
        return None
    places = [reader.index.get(key) for key in keys]
    paths = [None if place is None else reader.source.path(place) for place in places]
    return paths if any(paths) else None
