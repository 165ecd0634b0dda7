"""The dual test: log-volume and effective rank of a Jacobian read together, with a p-value that holds.

The score alone inverts: images of some other sets score *higher* than the in-set (the paradox of likelihoods, which
the local intrinsic dimension explains: arXiv 2403.18910). The singular values know both, their volume and how many
of them count. So an image is a point of two coordinates,

    c(x) = (score(x), log effective_rank(x)),   effective_rank = exp(H(sigma / sum sigma)), nulls left out,

and a reference set, held out, says where such points lie: z = (c - median) / (IQR / 1.349), and the correlation of the
two, R. Two statistics of z are offered; both are larger where an image is more unusual.

``dual`` (two-sided) is a log-likelihood ratio, of z ~ N(0, R) against a fixed mixture of what other sets do:

    log sum_k w_k N(z; m_k, R + V_k) - log N(z; 0, R)

In each k either coordinate is lower, higher or unmoved, with weights .7, .1, .2, independently; m_k moves what moves
by one standard deviation, and V_k adds a variance of one to it, so that moves of several are no surprise. Low counts
sooner than high, and far out both count: a two-sided test that leans. The weights were chosen on synthetic shifts and
on the published spectra of two DINOv2; studies/dual/PROTOCOL.md says how, and what else was tried.

``dual_one_sided`` is Fisher's sum, -log Phi(z_1) - log Phi(z_2): low in either coordinate is unusual, high never is.
It is the sharper one where both are known to fall, and blind where one of them rises.

The p-value is conformal, so that neither the normal law nor the weights have to be true for the false-alarm rate to be
what it says. See `DualTest.p_values`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr

from jepa_jax.analysis import conformal
from jepa_jax.analysis.reference import ReferenceSplit
from jepa_jax.analysis.statistics import effective_rank
from jepa_jax.errors import ArgumentError
from jepa_jax.scored.table import ScoreTable

SMALLEST_REFERENCE = 20
"""Medians and quartiles of fewer images are no standard to measure by."""

LARGEST_JOINT_FIT = 1000
"""Up to so many reference images the fit is made anew with every judged image; of more, half as many are fitted on."""

STRONGEST_CORRELATION = 0.9
"""Of the two coordinates that is believed; nearer to one, rounding and curvature would decide."""

IQR_OF_NORMAL = 1.349
"""Interquartile range of the standard normal law."""

COORDINATES = ("score", "effective_rank")

MOVES = ((-1.0, 0.7), (1.0, 0.1), (0.0, 0.2))
"""How other sets move a coordinate, in standard deviations, and how likely that is held to be."""

_CHUNK = 500_000
"""Points that are weighed at a time."""


class Fit(NamedTuple):
    """Where reference points lie; leading axes are those of the sets.

    Attributes:
        centre: medians [..., 1, 2].
        spread: interquartile ranges as standard deviations [..., 1, 2].
        correlation: of the coordinates, each standardised and cut at three [..., 1].
    """

    centre: np.ndarray
    spread: np.ndarray
    correlation: np.ndarray


def coordinates(score: np.ndarray, singular_values: np.ndarray) -> np.ndarray:
    """The score and the log of the effective rank.

    Args:
        score: [N], nats.
        singular_values: [N, L], structural nulls left out.

    Returns:
        [N, 2].
    """
    return np.stack([np.asarray(score, np.float64), np.log(effective_rank(singular_values))], axis=1)


def fit_points(points: np.ndarray) -> Fit:
    """Median, spread and correlation of points [..., n, 2], whatever their order."""
    low, centre, high = np.quantile(points, [0.25, 0.5, 0.75], axis=-2, keepdims=True)
    spread = np.maximum((high - low) / IQR_OF_NORMAL, np.finfo(np.float32).tiny)
    z = np.clip((points - centre) / spread, -3, 3)
    z = z - z.mean(axis=-2, keepdims=True)
    product = (z[..., 0] * z[..., 1]).sum(axis=-1)
    norm = np.sqrt((z**2).sum(axis=-2).prod(axis=-1))
    correlation = product / np.maximum(norm, np.finfo(np.float32).tiny)
    return Fit(centre, spread, np.clip(correlation, -STRONGEST_CORRELATION, STRONGEST_CORRELATION)[..., None])


def two_sided(points: np.ndarray, fit: Fit) -> np.ndarray:
    """The leaning likelihood ratio of the module's docstring: points [..., n, 2] to [..., n]."""
    z = (points - fit.centre) / fit.spread
    null = _log_normal(z, (0.0, 0.0), (1.0, 1.0), fit.correlation)
    total = np.full(null.shape, -np.inf)
    for (first, likely), (second, also) in itertools.product(MOVES, repeat=2):
        widths = 1.0 + (first != 0), 1.0 + (second != 0)
        moved = _log_normal(z, (first, second), widths, fit.correlation)
        total = np.logaddexp(total, math.log(likely * also) + moved)
    return total - null


def one_sided(points: np.ndarray, fit: Fit) -> np.ndarray:
    """Fisher's sum of the two lower tails: points [..., n, 2] to [..., n]."""
    return -log_ndtr((points - fit.centre) / fit.spread).sum(axis=-1)


DUAL_TESTS: dict[str, Callable[[np.ndarray, Fit], np.ndarray]] = {"dual": two_sided, "dual_one_sided": one_sided}
"""Each takes points and the fit of a reference to how unusual the points are."""


@dataclass(frozen=True)
class DualTest:
    """One of `DUAL_TESTS`, and the held-out images that it measures by.

    Attributes:
        name: ``dual`` or ``dual_one_sided``.
        split: the reference images.
        fitted: coordinates of those that are fitted on [n, 2].
        calibrating: coordinates of the others [m, 2]; none where the fit is made anew with every judged image.
    """

    name: str
    split: ReferenceSplit
    fitted: np.ndarray
    calibrating: np.ndarray

    @classmethod
    def of_points(cls, points: np.ndarray, split: ReferenceSplit, name: str = "dual") -> DualTest:
        """A test by the coordinates [n, 2] of a split's images."""
        if len(points) <= LARGEST_JOINT_FIT:
            return cls(name, split, points, points[:0])
        drawn = points[np.random.default_rng(0).permutation(len(points))]
        return cls(name, split, drawn[: LARGEST_JOINT_FIT // 2], drawn[LARGEST_JOINT_FIT // 2 :])

    def score(self, table: ScoreTable) -> np.ndarray:
        """[N], higher = more typical, as for every statistic of an evaluation.

        Raises:
            ArgumentError: the table shares an image with the reference, or has no singular values.
        """
        return -DUAL_TESTS[self.name](self._judged(table), fit_points(self.fitted))

    def require(self, table: ScoreTable) -> None:
        """Refuse a table that lacks what the test reads.

        Raises:
            ArgumentError: it does.
        """
        table_coordinates(table)

    def p_values(self, table: ScoreTable, *, smoothed: bool = True, seed: int = 0) -> np.ndarray:
        """Conformal p-values: P(p <= a) = a for an image exchangeable with the reference; <= a if not smoothed.

        Up to `LARGEST_JOINT_FIT` reference images all of them calibrate: for each judged image the fit is made of the
        reference *and* that image, so that none of the n + 1 is treated otherwise than the rest, and p is the rank of
        the image among them (full conformal prediction; Vovk, Gammerman and Shafer 2005). Of a larger reference some
        images, drawn at random, are fitted on, and the others calibrate.

        The guarantee is over the draw of the reference together with the image, and p-values of one reference depend
        on each other, as those of `conformal.p_values` do.

        Args:
            table: images to judge.
            smoothed: whether ties, and the step of p, are broken at random.
            seed: of that.

        Returns:
            [N], in (0, 1].

        Raises:
            ArgumentError: as `score`.
        """
        return self.p_values_at(self._judged(table), smoothed=smoothed, seed=seed)

    def p_values_at(self, points: np.ndarray, *, smoothed: bool = True, seed: int = 0) -> np.ndarray:
        """`p_values` of coordinates [N, 2]."""
        if len(self.calibrating):
            fit = fit_points(self.fitted)
            calibrating, judged = (-DUAL_TESTS[self.name](some, fit) for some in (self.calibrating, points))
            return conformal.p_values(calibrating, judged, smoothed=smoothed, seed=seed)
        more, equal = self._ranks(points)
        uniform = 1 - np.random.default_rng(seed).random(len(points)) if smoothed else 1.0
        return (more + uniform * (1 + equal)) / (len(self.fitted) + 1)

    def _ranks(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each judged point: how many reference points are more unusual, and how many as much so, [N] each."""
        size = len(self.fitted) + 1
        step = max(1, _CHUNK // size)
        more, equal = np.zeros(len(points), int), np.zeros(len(points), int)
        for start in range(0, len(points), step):
            some = points[start : start + step]
            reference = np.broadcast_to(self.fitted, (len(some), *self.fitted.shape))
            together = np.concatenate([reference, some[:, None]], axis=1)
            unusual = DUAL_TESTS[self.name](together, fit_points(together))
            others, own = unusual[:, :-1], unusual[:, -1:]
            more[start : start + step] = (others > own).sum(axis=1)
            equal[start : start + step] = (others == own).sum(axis=1)
        return more, equal

    def _judged(self, table: ScoreTable) -> np.ndarray:
        self.split.require_disjoint(table)
        return table_coordinates(table)


def fit_dual(split: ReferenceSplit, name: str = "dual") -> DualTest:
    """A dual test that measures by a reference split.

    Raises:
        ArgumentError: the name is unknown, the reference is too small, has no singular values, or does not vary.
    """
    if name not in DUAL_TESTS:
        raise ArgumentError(f"dual test {name!r} is unknown; use one of {', '.join(DUAL_TESTS)}.")
    if len(split) < SMALLEST_REFERENCE:
        raise ArgumentError(
            f"the reference has {len(split)} images; the dual test needs {SMALLEST_REFERENCE} at least."
        )
    points = table_coordinates(split.table)
    for column, coordinate in zip(COORDINATES, points.T, strict=True):
        low, high = np.quantile(coordinate, [0.25, 0.75])
        if not high > low:
            raise ArgumentError(f"{column} is the same for half of the reference's {len(split)} images; use another.")
    return DualTest.of_points(points, split, name)


def table_coordinates(table: ScoreTable) -> np.ndarray:
    """`coordinates` of a table, [N, 2].

    Raises:
        ArgumentError: the table has no singular values, or a score that is not finite.
    """
    spectrum = table.structural_spectrum
    if spectrum is None:
        raise ArgumentError(f"{table.name!r} has no singular values; score with --save singular_values.")
    points = coordinates(table.scores["score"], spectrum)
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise ArgumentError(f"{int(bad.sum())} images of {table.name!r} have no finite score; leave them out.")
    return points


def _log_normal(
    z: np.ndarray, means: tuple[float, float], widths: tuple[float, float], correlation: np.ndarray
) -> np.ndarray:
    """log N(z; means, [[w1, r], [r, w2]]) but for a constant: z [..., n, 2] to [..., n]."""
    first, second = z[..., 0] - means[0], z[..., 1] - means[1]
    determinant = widths[0] * widths[1] - correlation**2
    squared = widths[1] * first**2 - 2 * correlation * first * second + widths[0] * second**2
    return -0.5 * (squared / determinant + np.log(determinant))
