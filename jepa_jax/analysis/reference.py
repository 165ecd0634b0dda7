"""The held-out rule: what is fitted is fitted on a `ReferenceSplit`, and a split refuses to judge its own images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from jepa_jax.errors import ArgumentError
from jepa_jax.jobs.output.columns import SCORES
from jepa_jax.scored.table import ScoreTable

SAME = 1e-5
"""Relative distance up to which two embeddings, or two spectra, are one image's: some hundred float32 roundings."""

SAME_IN_FLOAT16 = 2.0**-10
"""The same where a table was saved in float16: every value may be rounded the other way."""


@dataclass(frozen=True)
class ReferenceSplit:
    """Images of the in-set that detectors and calibrations are fitted on, and that are never scored by them.

    An image counts as the same if it has the same key in the same origin, or the same content as far as the tables
    know it: embeddings, else singular values, up to rounding, which differs between batches; else scores, exactly.

    Attributes:
        table: the reference images.
        identities: origin and key of each.
    """

    table: ScoreTable
    identities: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, table: ScoreTable) -> ReferenceSplit:
        """A whole table as the reference."""
        return cls(table, frozenset(_identities(table)))

    def __len__(self) -> int:
        return len(self.table)

    def overlap(self, table: ScoreTable) -> np.ndarray:
        """[N] mask: which rows of a table are reference images."""
        same_key = [identity in self.identities for identity in _identities(table)]
        return np.array(same_key, bool) | same_content(table, self.table)

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
                f"({examples}): what is fitted on an image must not judge it. Use a reference of other images; "
                "evaluate also leaves these out of the judged ones, with --drop-overlap."
            )


def hold_out(table: ScoreTable, share: float, seed: int = 0) -> tuple[ReferenceSplit, ScoreTable]:
    """Split a table into a reference and the rest, the same way every time and on every machine.

    The key of an image decides its side, and that of its first copy where there are some, so that they stay together.

    Args:
        table: the in-set.
        share: of the images that become the reference, over 0 and under 1.
        seed: another seed is another split.

    Raises:
        ArgumentError: the share leaves one side empty.
    """
    if not 0 < share < 1:
        raise ArgumentError(f"reference_share={share} must lie between 0 and 1.")
    digests, keys = content_digests(table), [str(key) for key in table.keys]
    first = {digest: key for key, digest in sorted(zip(keys, digests, strict=True), reverse=True)}
    deciding = [first[digest].encode() + seed.to_bytes(8, "big") for digest in digests]
    marks = [hashlib.sha256(text).digest()[:8] for text in deciding]
    uniform = np.array([int.from_bytes(mark, "big") for mark in marks], np.float64) / 2**64
    held_out = uniform < np.quantile(uniform, share)
    if held_out.any():  # copies that differ in rounding alone
        held_out |= same_content(table, table.take(held_out))
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
        content = np.stack([table.scores[name] for name in SCORES if name in table.scores], axis=1)
    rows = np.ascontiguousarray(content)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def same_content(table: ScoreTable, other: ScoreTable) -> np.ndarray:
    """[N] mask: which images of a table are in another one as well, by what both know of their content."""
    for name in ("embedding", "singular_values"):
        rows, others = getattr(table, name), getattr(other, name)
        if rows is not None and others is not None:
            if rows.shape[1] != others.shape[1]:
                return np.zeros(len(rows), bool)
            return near(rows, others, SAME_IN_FLOAT16 if _in_float16(table) or _in_float16(other) else SAME)
    known = set(content_digests(other))
    return np.array([digest in known for digest in content_digests(table)], bool)


def near(rows: np.ndarray, others: np.ndarray, same: float = SAME) -> np.ndarray:
    """[N] mask: which rows [N, K] are those of another array [M, K] up to a share of their length.

    Rows that are near one another are so along any direction: along a first one, the candidates of each are a window;
    those that are near along some more are compared in full.
    """
    directions = np.random.default_rng(0).standard_normal((rows.shape[1], 4))
    directions /= np.linalg.norm(directions, axis=0)
    along, along_others = rows @ directions, others @ directions
    order = np.argsort(along_others[:, 0])
    ordered = along_others[order, 0]
    within = same * np.linalg.norm(rows.astype(np.float64), axis=1)
    first = np.searchsorted(ordered, along[:, 0] - within)
    last = np.searchsorted(ordered, along[:, 0] + within, side="right")
    found = np.zeros(len(rows), bool)
    waiting = np.flatnonzero(first < last)
    step = 0
    while waiting.size:
        candidates = order[first[waiting] + step]
        apart = np.abs(along[waiting] - along_others[candidates]).max(axis=1)
        close, theirs = waiting[apart <= within[waiting]], candidates[apart <= within[waiting]]
        found[close] = np.linalg.norm(rows[close].astype(np.float64) - others[theirs], axis=1) <= within[close]
        step += 1
        waiting = waiting[(first[waiting] + step < last[waiting]) & ~found[waiting]]
    return found


def _in_float16(table: ScoreTable) -> bool:
    return table.manifest.get("pinned", {}).get("save_dtype") == "float16"


def _identities(table: ScoreTable) -> list[tuple[str, str]]:
    return [(table.origin, str(key)) for key in table.keys]
