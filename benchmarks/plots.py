"""A run's results as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, THEIRS = "#0b6e99", "#9aa5ad"


def write_plots(results: dict[str, Any], output: Path) -> None:
    """Write one picture for every stage that has one, named after it."""
    for name, outcome in results["stages"].items():
        draw = _DRAWINGS.get(name.split("-")[0])
        if draw and outcome["results"]:
            # The same figures give the same file.
            with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
                draw(outcome["results"]).savefig(output / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")


def _race(race: dict[str, Any]) -> Figure:
    """Seconds per image, from fastest to slowest, with their extremes; emulated levels are left out."""
    ran = [row for row in race["contestants"] if row["seconds"] and not row["emulated"]]
    ran.sort(key=lambda row: row["seconds_median"])
    figure = Figure(figsize=(8, 0.8 + 0.36 * len(ran)), layout="constrained")
    axes = figure.add_subplot()
    medians = [row["seconds_median"] for row in ran]
    below = [row["seconds_median"] - row["seconds_min"] for row in ran]
    above = [row["seconds_max"] - row["seconds_median"] for row in ran]
    colours = [OURS if row["way"] in ("generic", "rules") else THEIRS for row in ran]
    axes.barh([row["contestant"] for row in ran], medians, color=colours, xerr=(below, above), capsize=3)
    axes.bar_label(axes.containers[-1], [f"{seconds:.3g} s" for seconds in medians], padding=6)  # pyright: ignore[reportArgumentType]
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"seconds per image: {race['model']} at {race['image_size']} px")
    _plain(axes)
    return figure


def _growth(results: dict[str, Any]) -> Figure:
    """Time and memory against each quantity, on logarithmic axes."""
    axes_of = results["axes"]
    figure = Figure(figsize=(2.6 * len(axes_of), 4.6), layout="constrained")
    grid = figure.subplots(2, len(axes_of), squeeze=False)
    rows = (("seconds_median", "seconds", 1.0), ("bytes", "MiB", 2.0**-20))
    for row, (key, unit, scale) in enumerate(rows):
        for column, (name, points) in enumerate(axes_of.items()):
            axes = grid[row, column]
            sizes = [point["size"] for point in points]
            axes.loglog(sizes, [point[key] * scale for point in points], marker="o", color=OURS)
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.set_ylabel(unit if column == 0 else "")
            axes.set_xlabel(name if row else "")
            _plain(axes)
    return figure


def _breakdown(results: dict[str, Any]) -> Figure:
    """Seconds of each part."""
    parts = results["parts"]
    figure = Figure(figsize=(8, 0.8 + 0.36 * len(parts)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(list(parts), [part["seconds_median"] for part in parts.values()], color=OURS)
    axes.bar_label(bars, [f"{part['seconds_median']:.3g} s" for part in parts.values()], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"seconds: {results['model']} at {results['image_size']} px")
    _plain(axes)
    return figure


def _accuracy(results: dict[str, Any]) -> Figure:
    """Each level's true and predicted error on the trained encoder."""
    levels = results["trained"]["levels"]
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    names = [row["precision"] for row in levels]
    for key, label, marker in (("error_rms", "true, rms", "o"), ("predicted_median", "predicted, median", "x")):
        axes.semilogy(names, [row[key] for row in levels], marker=marker, linestyle="", color=OURS, label=label)
    axes.set_ylabel(f"nats: {results['trained']['model']}")
    axes.legend(frameon=False)
    _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


_DRAWINGS = {"race": _race, "growth": _growth, "breakdown": _breakdown, "accuracy": _accuracy}
