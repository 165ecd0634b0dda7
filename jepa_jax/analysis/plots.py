"""Plots for notebooks and papers, by Matplotlib (extra ``plots``): each draws into axes and returns them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_jax.analysis.agreement import agreement as compare
from jepa_jax.errors import ArgumentError, printable
from jepa_jax.extras import require_packages
from jepa_jax.scored.scored_images import ScoredImages
from jepa_jax.scored.table import ScoreTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Scored = ScoredImages | ScoreTable
"""What is plotted: what `score_folder` returned, or what `read_table` read."""

TAIL = 0.05
"""Share of the images that is called rarest, and most typical."""

RARE, TYPICAL, INK = "#b4441c", "#0b7068", "#2b5fa8"


def distribution(*scored: Scored, column: str = "score", bins: int = 60, ax: Axes | None = None) -> Axes:
    """Histogram of the scores of one set or several, as shares of each set, with its median as a line.

    Args:
        scored: at least one; several must be by the same encoder for their scores to compare.
        column: ``score``, ``listing_score`` or ``gaussian_score``.
        bins: of the histogram.
        ax: axes to draw into; by default new ones.

    Returns:
        The axes.

    Raises:
        ArgumentError: no set, sets whose scores do not compare, or no such column.
        JobError: Matplotlib is not installed.
    """
    tables = [_table(each) for each in scored]
    if not tables:
        raise ArgumentError("scored is empty; give a set at least.")
    if len({table.encoder_id for table in tables}) > 1:
        names = ", ".join(f"{table.name} by {table.encoder}" for table in tables)
        raise ArgumentError(f"scored holds {names}, at their sizes and precisions: their scores do not compare.")
    for table in tables:
        if column not in table.scores:
            raise ArgumentError(f"column={column!r} is none of {', '.join(table.scores)}.")
    axes = _axes(ax)
    values = [table.scores[column] for table in tables]
    edges = np.histogram_bin_edges(np.concatenate(values), bins)
    for i, (table, scores) in enumerate(zip(tables, values, strict=True)):
        colour = f"C{i}"
        weights = np.full(len(scores), 1 / len(scores))
        label = f"{printable(table.name)}, {len(scores):,} images"
        axes.hist(scores, edges.tolist(), weights=weights, alpha=0.5, color=colour, label=label)
        axes.axvline(float(np.median(scores)), color=colour, linestyle="--", linewidth=1)
    axes.set(xlabel=f"{column.replace('_', ' ')}, nats (higher = more typical)", ylabel="share of the images")
    axes.legend(title="line: median")
    return axes


def spectrum(scored: Scored, ax: Axes | None = None) -> Axes:
    """Singular values by rank: bands of the middle 50% and 90% of the images, and medians of the extremes.

    Args:
        scored: with ``singular_values`` (``save=["singular_values"]``).
        ax: axes to draw into; by default new ones.

    Returns:
        The axes.

    Raises:
        ArgumentError: the singular values were not saved.
        JobError: Matplotlib is not installed.
    """
    table = _table(scored)
    values = table.structural_spectrum
    if values is None:
        raise ArgumentError('scored has no singular_values; score it with save=["singular_values"].')
    known = np.isfinite(values[:, 0])
    values, scores = values[known], table.scores["score"][known]
    axes = _axes(ax)
    ranks = np.arange(1, values.shape[1] + 1)
    low, quarter, middle, three, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    axes.fill_between(ranks, low, high, color=INK, alpha=0.15, linewidth=0, label="middle 90% of the images")
    axes.fill_between(ranks, quarter, three, color=INK, alpha=0.3, linewidth=0, label="middle 50%")
    axes.plot(ranks, middle, color=INK, label="median")
    rarest, typical = scores <= np.quantile(scores, TAIL), scores >= np.quantile(scores, 1 - TAIL)
    axes.plot(ranks, np.median(values[rarest], axis=0), color=RARE, label="median of the rarest 5%")
    axes.plot(ranks, np.median(values[typical], axis=0), color=TYPICAL, label="median of the most typical 5%")
    axes.set(xlabel="rank of the singular value", ylabel="singular value of the Jacobian", yscale="log")
    axes.legend()
    return axes


def agreement(first: Scored, second: Scored, ax: Axes | None = None) -> Axes:
    """Percentiles of the same images under two encoders, a dot each.

    Args:
        first: a set.
        second: the same input by another encoder, so that keys mean the same images.
        ax: axes to draw into; by default new ones.

    Returns:
        The axes.

    Raises:
        ArgumentError: they share fewer than three images.
        JobError: Matplotlib or SciPy is not installed.
    """
    require_packages("analysis", ("scipy",))
    one, other = _table(first), _table(second)
    found = compare(one, other)
    if found is None:
        raise ArgumentError("first and second share fewer than three images: agreement is of one input scored twice.")
    axes = _axes(ax)
    axes.plot([0, 100], [0, 100], color="0.7", linewidth=1)
    axes.scatter(found.ranks[:, 0], found.ranks[:, 1], s=6, alpha=0.4, color=INK, linewidths=0)
    names = [printable(table.name) for table in (one, other)]
    axes.set(xlabel=f"percentile by {names[0]}", ylabel=f"percentile by {names[1]}", aspect="equal")
    axes.set_title(f"Spearman {found.spearman:.2f} over {found.count:,} images")
    return axes


def extremes(scored: ScoredImages, count: int = 6, axes: Any = None) -> np.ndarray:
    """The rarest pictures in a row and the most typical ones below, each with its score.

    Args:
        scored: with its pictures where they were scored.
        count: pictures in a row, at most half of the images.
        axes: [2, count] axes to draw into; by default new ones.

    Returns:
        The axes, [2, count].

    Raises:
        ArgumentError: count does not fit.
        JobError: Matplotlib is not installed.
    """
    require_packages("plots")
    import matplotlib.pyplot as plt

    if not 1 <= count <= len(scored) // 2:
        raise ArgumentError(f"count={count} must lie between 1 and half of the {len(scored)} images.")
    if axes is None:
        _, axes = plt.subplots(2, count, squeeze=False, figsize=(1.6 * count, 4.2), layout="constrained")
    axes = np.asarray(axes)
    if axes.shape != (2, count):
        raise ArgumentError(f"axes of shape {axes.shape} must be [2, {count}].")
    for line, highest, title in ((axes[0], False, "rarest"), (axes[1], True, "most typical")):
        for place, row in zip(line, scored.order(highest=highest)[:count].tolist(), strict=True):
            picture = scored.picture(row)
            if picture is None:
                place.text(0.5, 0.5, "no picture", ha="center", va="center", transform=place.transAxes)
            else:
                place.imshow(np.asarray(picture))
            place.set_axis_off()
            place.set_title(f"{scored.scores[row]:.1f}", fontsize=9)
        line[0].set_title(f"{title}\n{line[0].get_title()}", fontsize=9, loc="left")
        line[0].set_title("")
    return axes


def _table(scored: Scored) -> ScoreTable:
    return scored.as_score_table() if isinstance(scored, ScoredImages) else scored


def _axes(ax: Axes | None) -> Axes:
    require_packages("plots")
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1] if ax is None else ax
