"""The held-out rule: what is fitted is fitted on a `ReferenceSplit`, and a split refuses to judge its own images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from jepa_jax.analysis.table import ScoreTable
from jepa_jax.errors import ArgumentError


@dataclass(frozen=True)
class ReferenceSplit:
    """Images of the in-set that detectors and calibrations are fitted on, and that are never scored by them.

    An image counts as the same if it has the same key in the same origin, or exactly the same content as far as
    the table knows it: embedding, else singular values, else scores.

    Attributes:
        table: the reference images.
        identities: origin and key of each.
        digests: content digest of each.
    """

    table: ScoreTable
    identities: frozenset[tuple[str, str]]
    digests: frozenset[bytes]

    @classmethod
    def of(cls, table: ScoreTable) -> ReferenceSplit:
        """A whole table as the reference."""
        return cls(table, frozenset(_identities(table)), frozenset(content_digests(table)))

    def __len__(self) -> int:
        return len(self.table)

    def overlap(self, table: ScoreTable) -> np.ndarray:
        """[N] mask: which rows of a table are reference images."""
        same_key = [identity in self.identities for identity in _identities(table)]
        same_content = [digest in self.digests for digest in content_digests(table)]
        return np.array(same_key, bool) | np.array(same_content, bool)

    def require_disjoint(self, table: ScoreTable) -> None:
        """Refuse a table that shares an image with the reference.

        Raises:
            ArgumentError: naming how many are shared, and some of them.
        """
        shared = self.overlap(table)
        if shared.any():
            examples = ", ".join(map(str, table.keys[shared][:3]))
            raise ArgumentError(
                f"{int(shared.sum())} of {len(table)} images of {table.name!r} are reference images as well "
                f"({examples}): what is fitted on an image must not judge it. Use a reference of other images, "
                "or --drop-overlap to leave them out of the judged ones."
            )


def hold_out(table: ScoreTable, share: float, seed: int = 0) -> tuple[ReferenceSplit, ScoreTable]:
    """Split a table into a reference and the rest, the same way every time.

    The content of an image decides its side, so that exact copies stay together.

    Args:
        table: the in-set.
        share: of the images that become the reference, over 0 and under 1.
        seed: another seed is another split.

    Raises:
        ArgumentError: the share leaves one side empty.
    """
    if not 0 < share < 1:
        raise ArgumentError(f"reference_share={share} must lie between 0 and 1.")
    digests = content_digests(table)
    marks = [hashlib.sha256(digest + seed.to_bytes(8, "big")).digest()[:8] for digest in digests]
    uniform = np.array([int.from_bytes(mark, "big") for mark in marks], np.float64) / 2**64
    held_out = uniform < np.quantile(uniform, share)
    if held_out.all() or not held_out.any():
        raise ArgumentError(
            f"reference_share={share} of the {len(table)} images of {table.name!r} leaves one side empty; "
            "score more images, or choose another share."
        )
    return ReferenceSplit.of(table.take(held_out)), table.take(~held_out)


def content_digests(table: ScoreTable) -> list[bytes]:
    """One digest per image over what the table knows of it."""
    content = table.embedding if table.embedding is not None else table.singular_values
    if content is None:
        content = np.stack(list(table.scores.values()), axis=1)
    rows = np.ascontiguousarray(content)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def _identities(table: ScoreTable) -> list[tuple[str, str]]:
    return [(table.origin, str(key)) for key in table.keys]
