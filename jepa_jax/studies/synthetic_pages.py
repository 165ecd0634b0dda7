"""What the synthetic study writes: its table, how to read it, and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jepa_jax.studies.outputs import markdown_table, write_json
from jepa_jax.studies.vectors import Recipe

COMMAND = "jepa-jax study synthetic"

BASELINES = ("kde", "knn", "fitted_gaussian", "fitted_mixture")

READING = """
**What was done.** Recipes were chosen with other seeds and points than those reported here; each seed has its own
start, training data and held-out points. In the rows "drawn anew" it has its own mixture too, which no recipe was
chosen on; all other rows have one density for all seeds. `mixture`: eight isotropic Gaussians with unequal weights
and widths in [0.5, 1], whose means are N(0, 8 / D) in each coordinate, so that two lie about 4 apart in any D ("16
apart" are the same with means N(0, 128 / D)). D is in the density's name. `noise` is the standard deviation of the
views' noise, as a share of the data's. The objective's weight is in `study.json`.

**The columns.** `score` is the paper's, the log-volume of the Jacobian; `log_normal` is log N(f(x); 0, I), and
`gaussian_score` is their sum. `views` combine 8 noisy copies by -logmeanexp(-score). `pearson` is that of
`gaussian_score`; the other correlations are Spearman's. The baselines were fitted to 5,000 samples; `fitted_gaussian`
is what a linear encoder (whitening) would say, so that what stands above it is what the encoder has learnt beyond it.

**Where the theory's assumption fails.** By the change of variables, log p(x) = `score` + log of the density that the
embeddings have at f(x). The paper drops the second term: N(0, I) in many dimensions is nearly uniform on a sphere.
But its logarithm, -|z|^2 / 2, has the standard deviation sqrt(K / 2), which *grows* with K; what shrinks is its share
of |z|^2, not its share of log p. With K = D it is never negligible: in the plane (K = 2) the term alone follows
log p better than `score` does, and for Gaussian data the encoder is linear, `score` constant, and the term everything.
`gaussian_score` keeps it: exact for K = D where f is injective and its embeddings are N(0, I). With K > D they cannot
be N(0, I), they fill a surface of it, and with K < D the score measures a projection; both are then estimates. With
K > D the `slope` of `gaussian_score` against log p is above 1, the more so the larger K: the order is right, the scale
is not.
"""


def median_row(note: str, recipe: Recipe, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table from the runs of all seeds, which it keeps under keys that the table leaves out."""
    spearman = {name: [run["spearman"][name] for run in runs] for name in runs[0]["spearman"]}
    medians = {name: float(np.median(values)) for name, values in spearman.items()}
    gaussian = spearman["gaussian_score"]
    return {
        "density": runs[0]["density"],
        "varies": note,
        "K": recipe.outputs,
        "objective": type(recipe.criterion).__name__,
        "noise": recipe.noise,
        **{name: value for name, value in medians.items() if name not in BASELINES},
        "pearson": float(np.median([run["pearson"]["gaussian_score"] for run in runs])),
        "slope": float(np.median([run["slope"] for run in runs])),
        "range": f"{min(gaussian):.2f}-{max(gaussian):.2f}",
        **{name: medians[name] for name in BASELINES},
        "seconds": sum(run["seconds"] for run in runs),
        "recipe": {"text": repr(recipe)},
        "spearman": spearman,
        "pearson_by_seed": {name: [run["pearson"][name] for run in runs] for name in runs[0]["pearson"]},
        "points": runs[0]["points"],
    }


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table's rows, without the figures of single seeds."""
    return [{name: value for name, value in row.items() if not isinstance(value, list | dict)} for row in rows]


def write_pages(output: Path, rows: list[dict[str, Any]], seeds: int, points: int) -> None:
    """``study.json``, ``study.md``, ``scatter.png`` and ``ranks.png`` of the rows so far."""
    kept = [{name: value for name, value in row.items() if name != "points"} for row in rows]
    seconds = sum(row["seconds"] for row in rows)
    write_json(output / "study.json", COMMAND, {"seconds": seconds, "seeds": seeds, "points": points, "rows": kept})
    heading = (
        f"Spearman correlation with log p on {points:,} held-out points, median of {seeds} seeds; `range` is that of "
        f"`gaussian_score` over the seeds. {seconds / 60:.0f} minutes of computing.\n\n"
    )
    pictures = "\n![Scores against log p](scatter.png)\n\n![Rank correlations](ranks.png)\n"
    (output / "study.md").write_text(heading + markdown_table(shown(rows)) + pictures + READING)
    draw_scatter(output / "scatter.png", [row for row in rows if row["varies"] == "K"] or rows[:1])
    draw_ranks(output / "ranks.png", rows)


def draw_scatter(path: Path, rows: list[dict[str, Any]]) -> None:
    """Both scores against log p of the first seed's points, one column per row of the table."""
    figure = Figure(figsize=(1.6 * len(rows), 3.4), layout="constrained")
    axes = figure.subplots(2, len(rows), squeeze=False)
    for column, row in enumerate(rows):
        for line, name in enumerate(("score", "gaussian_score")):
            axis = axes[line, column]
            axis.plot(row["points"]["log p"], row["points"][name], ".", markersize=1)
            axis.tick_params(labelsize=5)
            if column == 0:
                axis.set_ylabel(name, fontsize=7)
        axes[0, column].set_title(label(row), fontsize=7)
        axes[1, column].set_xlabel("log p", fontsize=7)
    figure.savefig(path, dpi=110)


def draw_ranks(path: Path, rows: list[dict[str, Any]]) -> None:
    """Every row's rank correlations: both scores, with all seeds, beside the baselines."""
    figure = Figure(figsize=(6.5, 1.0 + 0.22 * len(rows)), layout="constrained")
    axis = figure.subplots()
    places = -np.arange(len(rows))
    for name, marker in (("score", "o"), ("gaussian_score", "D")):
        [line] = axis.plot([row[name] for row in rows], places, marker, markersize=5, label=name)
        for place, row in zip(places, rows, strict=True):
            axis.plot(row["spearman"][name], [place] * len(row["spearman"][name]), "-", color=line.get_color(), lw=1)
    for name, marker in zip(BASELINES, ("|", "1", "x", "+"), strict=True):
        axis.plot([row[name] for row in rows], places, marker, color="0.4", markersize=6, label=name)
    axis.set_yticks(places, [f"{label(row)}, {row['objective']}, noise {row['noise']:g}" for row in rows], fontsize=6)
    axis.set_xlabel("Spearman correlation with log p", fontsize=7)
    axis.tick_params(axis="x", labelsize=6)
    axis.grid(axis="x", linewidth=0.3)
    axis.legend(fontsize=6, loc="lower left")
    figure.savefig(path, dpi=130)


def label(row: dict[str, Any]) -> str:
    """The row in few words."""
    return f"{row['density']}, K={row['K']}"
