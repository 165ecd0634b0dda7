"""What a cell of a column of images may hold, and what is decoded of it. Imports no JAX.

Engines (Ray Data, `datasets`, Spark, Beam) hand pictures over in many forms: encoded bytes, arrays, PIL images, paths,
and the struct ``{"bytes", "path"}`` of Hugging Face's ``Image(decode=False)``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jepa_jax.errors import ArgumentError
from jepa_jax.images.layouts import CHANNELS, misread
from jepa_jax.images.sources.records import Unusable, read_file

ACCEPTED = "uint8 arrays [H, W, 3], encoded bytes, {'bytes', 'path'}, PIL images, or paths as text"

NOTHING = Unusable("there is no image in this row")


def picture_locators(cells: Sequence[Any], column: str) -> list[Any]:
    """Where the picture of every row lies, for `read_picture`: a path, or the picture itself.

    Args:
        cells: of one column, a row each.
        column: its name.

    Raises:
        ArgumentError: they are no pictures, or could be read in two ways: float arrays, channels first.
    """
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "S":
        raise ArgumentError(
            f"the column {column!r} has dtype {cells.dtype}, which drops zeros at the end of encoded images; make it "
            "an array of dtype object."
        )
    return [_locator(cell, column, len(cells)) for cell in cells]


def read_picture(locator: Any) -> bytes | np.ndarray | Image.Image:
    """What `jepa_jax.images.decoding.decode` takes.

    Raises:
        ImageError, OSError: as `read_file`, of a path.
    """
    return read_file(locator) if isinstance(locator, str) else locator


def _locator(cell: Any, column: str, rows: int) -> Any:
    if isinstance(cell, Mapping):
        found = [cell[name] for name in ("bytes", "path") if not _is_missing(cell.get(name))]
        return _locator(found[0], column, rows) if found else NOTHING
    if _is_missing(cell):
        return NOTHING
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    if isinstance(cell, Image.Image):
        return cell
    if isinstance(cell, str | os.PathLike):
        return os.fspath(cell)
    if not hasattr(cell, "__array__"):
        what = f"values of type {type(cell).__name__}"
        if isinstance(cell, list | tuple):
            what += ", which do not say what their numbers mean (in datasets, .with_format('numpy') gives arrays)"
        raise ArgumentError(f"the column {column!r} holds {what}; it must hold {ACCEPTED}.")
    array = np.asarray(cell)
    if problem := _two_readings(array, rows):
        raise ArgumentError(
            f"the column {column!r} holds an array of dtype {array.dtype} and shape {array.shape}: {problem}."
        )
    return array


def _two_readings(array: np.ndarray, rows: int) -> str | None:
    """Why a row's array is no sure picture, and what to write; None where it is one, or a bad one."""
    if array.dtype != np.uint8:
        return "values of another dtype than uint8 could be read in several ways; give uint8 values 0..255"
    height_first = array.ndim == 2 and array.shape[-1] not in CHANNELS
    channels_nowhere = array.ndim == 3 and not {array.shape[0], array.shape[-1]} & set(CHANNELS)
    if height_first or channels_nowhere or array.ndim not in (2, 3):
        return None  # grey, of which the column says how many there are; or none that decoding takes
    return misread((rows, *array.shape))


def _is_missing(cell: Any) -> bool:
    """None, pandas' NA, or the NaN that stands for either in a column of objects."""
    return cell is None or type(cell).__name__ == "NAType" or (isinstance(cell, float) and cell != cell)
