"""Groups of images: by folder, by a pattern in the key, or by a column of the table."""

from __future__ import annotations

import re

import numpy as np

from jepa_jax.errors import ArgumentError
from jepa_jax.scored.table import ScoreTable

UNGROUPED = "(no group)"

NONE = "none"
"""As ``by``: no groups, even where there are folders."""

_ARCHIVE = re.compile(r"\.(tar(\.\w+)?|tgz|zip|parquet|arrow)$", re.IGNORECASE)
"""Ending of a first part of keys that names a shard of a set, and no folder of like images."""


def group_names(table: ScoreTable, by: str | None) -> np.ndarray | None:
    """The group of every image.

    Args:
        table: scored images.
        by: ``folder`` (the first part of the key's path), a column of the table, or a regular expression whose first
            capturing group names it; ``none`` for no groups. By default see `default_grouping`.

    Returns:
        [N] names, or None for no groups. Keys that a pattern does not match are in `UNGROUPED`.

    Raises:
        ArgumentError: no such column, or the pattern is none or matches no key.
    """
    by = by or default_grouping(table)
    if by == NONE:
        return None
    if by == "folder":
        return np.array([key.split("/")[0] if "/" in key else UNGROUPED for key in table.keys], object)
    if by in table.groups:
        return table.groups[by]
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise ArgumentError(f"group_by={by!r} is neither a column nor a regular expression ({error}).") from error
    if not pattern.groups:
        columns = ", ".join((NONE, "folder", *table.groups))
        raise ArgumentError(
            f"group_by={by!r} is none of {columns}, and as a regular expression it needs a group, such as '([a-z]+)_'."
        )
    found = [pattern.search(key) for key in table.keys]
    if not any(found):
        raise ArgumentError(f"group_by={by!r} matches no key, such as {table.keys[0]!r}.")
    return np.array([(match.group(1) if match else None) or UNGROUPED for match in found], object)


def default_grouping(table: ScoreTable) -> str:
    """``folder`` where every key has one, there are several, and they are no archives; else ``none``."""
    if not all("/" in key for key in table.keys):
        return NONE
    folders = {key.split("/")[0] for key in table.keys}
    return "folder" if len(folders) > 1 and not any(map(_ARCHIVE.search, folders)) else NONE


def grouping(table: ScoreTable, by: str | None, names: np.ndarray | None) -> str:
    """By what images were grouped, in words.

    Args:
        table: scored images.
        by: as `group_names` was asked.
        names: what it returned.
    """
    if names is None:
        return "not grouped: the keys have no folders, or one alone, or archives" if by is None else "not grouped"
    count = len(set(names))
    groups = f"{count:,} group{'s' * (count != 1)}"
    if by is None or by == "folder":
        chosen = " (--group-by chooses another way)" if by is None else ""
        return f"by the first folder of the key, {groups}{chosen}"
    return f"by the column {by}, {groups}" if by in table.groups else f"by the pattern {by} over the keys, {groups}"


def rows_by_group(names: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of each group, the largest group first, ties by name."""
    order = np.argsort(names.astype(str), kind="stable")
    unique, starts = np.unique(names[order].astype(str), return_index=True)
    pieces = dict(zip(unique.tolist(), np.split(order, starts[1:]), strict=True))
    return dict(sorted(pieces.items(), key=lambda item: (-len(item[1]), item[0])))
