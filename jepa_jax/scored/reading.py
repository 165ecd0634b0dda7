"""From a path to scored images: a job's directory, or a file of singular values."""

from __future__ import annotations

import os

from jepa_jax.errors import ArgumentError
from jepa_jax.paths import require_named, to_path
from jepa_jax.scored.job import read_job
from jepa_jax.scored.spectra_file import read_spectra
from jepa_jax.scored.table import ScoreTable


def read_table(
    path: str | os.PathLike, *, name: str | None = None, null_directions: int = 0, partial: bool = False
) -> ScoreTable:
    """Read scored images.

    Args:
        path: a directory of `jepa-jax score`; or a file of singular values [N, K], which are scored here:
            ``.npy``, ``.npz`` (array ``singular_values``, optionally ``embedding`` and ``key``), or ``.parquet``
            (a list column ``singular_values``, optionally ``embedding`` and ``key``).
        name: of the set; by default the last part of the path.
        null_directions: of a file, how many of the smallest values are zero by construction (2 for DINOv2).
            A job's table knows its own.
        partial: whether an unfinished job is good enough.

    Raises:
        JobError: there is no job, or it is unfinished.
        ArgumentError: the file does not hold what it should.
    """
    require_named(path, "scored set")
    place = to_path(path)
    if place.is_dir():
        return read_job(place, name or place.name or str(place), partial)
    if not place.exists():
        raise ArgumentError(f"{path} is neither a directory of jepa-jax score nor a file.")
    return read_spectra(place, name or place.name.removesuffix(place.suffix), null_directions)


def named_path(text: str) -> tuple[str | None, str]:
    """``NAME=PATH`` to both, a bare path to (None, path)."""
    name, sign, path = text.partition("=")
    return (name, path) if sign and "/" not in name else (None, text)
