"""Scored images of one set in memory, wherever they come from, as one type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jepa_jax.errors import ArgumentError


@dataclass(frozen=True)
class ScoreTable:
    """Scored images of one set by one encoder; N images, K embedding dimensions.

    Attributes:
        name: of the set, for tables and figures.
        origin: where the images come from; a key is unique within its origin.
        keys: [N] record keys.
        scores: ``score``, ``listing_score``, where it applies ``gaussian_score``, and of each layer that was scored
            one such as ``score_layer_9``: float64 [N], nats. A layer's may have NaNs, where it has none.
        null_directions: how many of the smallest singular values are zero by the encoder's construction.
        singular_values: float32 [N, K], descending, or None where they were not saved.
        embedding: float32 [N, K], or None where it was not saved.
        manifest: of the job; empty for a file of singular values.
        failures: key and reason of every image without a score.
        groups: further text columns of the table, such as a label, to group by; ``method`` among them says of each
            score whether it is ``exact`` or ``amortised``, that is predicted, where a job has both.
        intervals: float64 [N, 2], nats: where the exact score of a predicted one lies; NaN of one that is exact. None
            where all are.
        unfamiliar: bool [N]: unlike what the predictions were calibrated on, or None.
    """

    name: str
    origin: str
    keys: np.ndarray
    scores: dict[str, np.ndarray]
    null_directions: int = 0
    singular_values: np.ndarray | None = None
    embedding: np.ndarray | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    failures: tuple[dict[str, str], ...] = ()
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    intervals: np.ndarray | None = None
    unfamiliar: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def encoder(self) -> str:
        """Name of the encoder, or ``unknown``."""
        return self.manifest.get("pinned", {}).get("encoder", "unknown")

    @property
    def encoder_id(self) -> str:
        """What two tables must share for their scores to compare: encoder, image size, precision and views."""
        pinned = self.manifest.get("pinned", {})
        shared = [str(pinned.get(name)) for name in ("encoder_digest", "image_size", "precision")]
        if pinned.get("views", 1) > 1:
            shared += [f"{pinned['views']} views", str(pinned["view_recipe"])]
        return "/".join(shared)

    @property
    def noun(self) -> str:
        """What its records are, in one word."""
        return noun_of(self.manifest)

    @property
    def predicted(self) -> np.ndarray:
        """[N] bool: whose score is predicted from one forward pass."""
        method = self.groups.get("method")
        return np.zeros(len(self), bool) if method is None else method == "amortised"

    @property
    def structural_spectrum(self) -> np.ndarray | None:
        """[N, K - nulls]: singular values without the smallest ones that are zero by construction."""
        if self.singular_values is None:
            return None
        return self.singular_values[:, : self.singular_values.shape[1] - self.null_directions]

    def take(self, rows: np.ndarray) -> ScoreTable:
        """The table of some rows, by index or mask."""

        def some(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[rows]

        return replace(
            self,
            keys=self.keys[rows],
            scores={name: values[rows] for name, values in self.scores.items()},
            singular_values=some(self.singular_values),
            embedding=some(self.embedding),
            intervals=some(self.intervals),
            unfamiliar=some(self.unfamiliar),
            groups={name: values[rows] for name, values in self.groups.items()},
        )


def only(tables: Sequence[ScoreTable], keys: Sequence[str]) -> list[ScoreTable]:
    """Of each table the rows with these keys, and no failures; a table that has none of them is left out.

    Raises:
        ArgumentError: a key is in no table.
    """
    wanted = set(keys)
    if lost := sorted(wanted.difference(*(table.keys for table in tables))):
        names = ", ".join(table.name for table in tables)
        raise ArgumentError(f"keys: {len(lost):,} of {len(wanted):,} have no score in {names}, such as {lost[0]!r}.")
    found = [
        replace(table.take(np.array([key in wanted for key in table.keys], bool)), failures=()) for table in tables
    ]
    return [table for table in found if len(table)]


def noun_of(manifest: Mapping[str, Any]) -> str:
    """What a job's records are: an image each, or a clip where its encoder takes clips."""
    preprocessing = manifest.get("pinned", {}).get("preprocessing", {})
    return "image" if preprocessing.get("frames") is None else "clip"


def shared_noun(tables: Sequence[ScoreTable]) -> str:
    """What the records of all tables are, in one word."""
    nouns = {table.noun for table in tables}
    return nouns.pop() if len(nouns) == 1 else "record"


def drawn_rows(count: int, most: int | None, seed: int = 0) -> np.ndarray:
    """So many of ``count`` row numbers at most, drawn without replacement, in order; None for all."""
    if most is None or count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
