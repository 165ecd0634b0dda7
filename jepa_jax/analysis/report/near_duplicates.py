"""Near-duplicates: images whose embeddings all but coincide, so that a list need not show one picture ten times."""

from __future__ import annotations

import numpy as np

NEAR = 0.1
"""Two images are near-duplicates where their embeddings are closer than this share of the median distance of two
drawn at random. By jepa-tiny a photograph compressed anew lies at 0.03, another one of 1,000 photographs above 0.3."""

MOST = 10_000
"""Images that are compared with all others: all, or of more so many at both ends of the scores."""

_PAIRS = 4096
_BLOCK = 1024


def compared_rows(scores: np.ndarray) -> np.ndarray:
    """[M] rows that are compared with all others: every one, or of many the rarest and the most typical."""
    order = np.argsort(scores, kind="stable")
    if len(order) <= MOST:
        return order
    return np.concatenate([order[: MOST // 4], order[-MOST // 4 :]])


def near_duplicates(embedding: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    """Groups of images that are near-duplicates of one another, directly or by way of others.

    Args:
        embedding: [N, K]; a row of NaN is of an image whose embedding is not known.
        scores: [N], nats.

    Returns:
        Row numbers of each group of two or more, the rarest first; the largest group first.
    """
    known = np.flatnonzero(np.all(np.isfinite(embedding), axis=1))
    if len(known) < 3:
        return []
    values = embedding[known].astype(np.float32)
    values = values - values.mean(axis=0)
    draw = np.random.default_rng(0).integers(0, len(known), (2, _PAIRS))
    draw = draw[:, draw[0] != draw[1]]
    typical = float(np.median(np.linalg.norm(values[draw[0]] - values[draw[1]], axis=1)))
    squares = np.sum(values.astype(np.float64) ** 2, axis=1).astype(np.float32)
    rows = compared_rows(scores[known])
    firsts, seconds = [], []
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        squared = squares[some, None] + squares[None] - 2 * values[some] @ values.T
        first, second = np.nonzero(squared <= (2 * NEAR * typical) ** 2)  # float32 rounds: looked at again
        exact = np.linalg.norm(values[some[first]] - values[second], axis=1) <= NEAR * typical
        firsts.append(some[first[exact]])
        seconds.append(second[exact])
    return _groups(known, np.concatenate(firsts), np.concatenate(seconds), scores)


def _groups(known: np.ndarray, firsts: np.ndarray, seconds: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(known)
    links = coo_array((np.ones(len(firsts), bool), (firsts, seconds)), shape=(size, size))
    _, label = connected_components(links, directed=False)
    counts = np.bincount(label)
    members = np.flatnonzero(counts[label] > 1)
    members = members[np.argsort(scores[known[members]], kind="stable")]
    members = members[np.argsort(label[members], kind="stable")]
    starts = np.flatnonzero(np.diff(label[members])) + 1
    groups = [known[group] for group in np.split(members, starts) if len(group)]
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))
