"""Conformal p-values: how unusual a score is against a reference set, with a false-alarm rate that holds exactly."""

from __future__ import annotations

from typing import Literal

import numpy as np

from jepa_jax.errors import ArgumentError

Side = Literal["low", "high"]


def p_values(
    reference: np.ndarray, scores: np.ndarray, *, side: Side = "low", smoothed: bool = True, seed: int = 0
) -> np.ndarray:
    """One-sided conformal p-values.

    For a score exchangeable with the n reference scores, P(p <= a) = a for every a if smoothed, and <= a if not,
    whatever the distribution (Vovk, Gammerman and Shafer 2005). With U uniform:

        smoothed:     (#{reference < s} + U (1 + #{reference = s})) / (n + 1)
        not smoothed: (#{reference <= s} + 1) / (n + 1)

    The guarantee is over the draw of the reference together with the image; p-values that share a reference
    depend on each other, weakly where it is large.

    Args:
        reference: [n] scores that calibrate.
        scores: [N] scores to judge.
        side: ``low`` calls low scores unusual: rare images, the score's meaning. ``high`` calls high ones so.
        smoothed: whether ties, and the step of 1 / (n + 1), are broken at random.
        seed: of that.

    Returns:
        [N], in (0, 1].
    """
    if side not in ("low", "high"):
        raise ArgumentError(f"side={side!r} is unknown; use 'low' or 'high'.")
    if not len(reference) or not np.all(np.isfinite(reference)):
        raise ArgumentError(f"the reference has {len(reference)} scores; it needs finite ones, and one at least.")
    sign = 1.0 if side == "low" else -1.0
    ordered = np.sort(sign * reference)
    below = np.searchsorted(ordered, sign * scores, side="left")
    up_to = np.searchsorted(ordered, sign * scores, side="right")
    if not smoothed:
        return (up_to + 1) / (len(reference) + 1)
    uniform = 1 - np.random.default_rng(seed).random(len(scores))  # in (0, 1]
    return (below + uniform * (1 + up_to - below)) / (len(reference) + 1)


def flagged(p: np.ndarray, rate: float, *, false_discovery: bool = False) -> np.ndarray:
    """Which p-values are alarms.

    Args:
        p: [N].
        rate: the false-alarm rate: the share of exchangeable images that is flagged. With ``false_discovery`` the
            share of the flagged ones that are false alarms (Benjamini and Hochberg 1995; conformal p-values of one
            reference depend positively, under which it holds: Bates et al. 2023).
        false_discovery: see ``rate``.
    """
    if not 0 < rate < 1:
        raise ArgumentError(f"rate={rate} must lie between 0 and 1.")
    if not false_discovery:
        return p <= rate
    from scipy.stats import false_discovery_control

    return false_discovery_control(p, method="bh") <= rate
