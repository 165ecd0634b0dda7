"""`jepa-jax study synthetic`: scores against log p, where log p is known."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from scipy.special import logsumexp
from scipy.stats import rankdata

from jepa_jax.studies.baselines import baselines
from jepa_jax.studies.densities import (
    Density,
    correlated_gaussian,
    random_mixture,
    ring,
    student,
    two_spirals,
)
from jepa_jax.studies.outputs import markdown_table, rich_table, write_json
from jepa_jax.studies.vectors import Recipe, TrainedVectors, score_vectors, train_vectors
from jepa_jax.training.objectives import VICReg

POINTS = 1000
"""Held-out points per cell."""

COMBINED_VIEWS = 8
SEEDS = 3

READING = """
**Reading it.** `score` is the paper's: it takes N(0, I) for uniform on a sphere, so that where a point is embedded
says nothing. That holds for large K, where the norm of a normal vector hardly varies; with K = 1 or 2 it fails,
and the score alone says little. `gaussian_score` adds log N(f(x); 0, I), which is the change of variables without that
assumption: exact for K = D where f is injective and its embeddings are N(0, I). With K > D they cannot be N(0, I)
(they fill a surface); with K < D the score measures a projection. Both are then estimates. `views`
combines 8 noisy copies by -logmeanexp(-gaussian_score). The baselines see 5,000 samples themselves.
"""


@dataclass(frozen=True)
class Cell:
    """One row of the study.

    Attributes:
        density: the truth.
        recipe: of the encoders.
        note: what varies here.
    """

    density: Density
    recipe: Recipe
    note: str = ""


def cells() -> list[Cell]:
    """The whole study."""
    plane, standard = random_mixture(2), Recipe(outputs=8)
    # SIGReg sees a deviation from N(0, I) above its sampling noise, 1 / B. Projections of a mixture in many
    # dimensions are nearly normal from the start, so that it takes larger batches to see what is left.
    large = Recipe(outputs=32, hidden=(128, 128), batch_size=2048, steps=1200)
    rows = [Cell(plane, standard, "K"), Cell(random_mixture(8), standard, "K"), Cell(random_mixture(32), large, "K")]
    rows += [Cell(plane, dataclasses.replace(standard, outputs=k), "K") for k in (2, 1, 16)]
    rows += [Cell(random_mixture(8), dataclasses.replace(standard, outputs=k), "K") for k in (4, 16)]
    rows += [Cell(random_mixture(32), dataclasses.replace(large, outputs=16), "K")]
    rows += [Cell(plane, dataclasses.replace(standard, noise=noise), "noise") for noise in (0.03, 0.3)]
    rows += [Cell(plane, dataclasses.replace(standard, criterion=VICReg()), "objective")]
    rows += [Cell(density, standard, "density") for density in (random_mixture(1), correlated_gaussian(2), ring())]
    rows += [Cell(density, standard, "density") for density in (two_spirals(), student(2))]
    rows += [Cell(correlated_gaussian(64), dataclasses.replace(large, outputs=64), "density")]
    return rows


def run_synthetic(console: Console, output: Path, quick: bool) -> list[dict[str, Any]]:
    """Run every cell, print the table, and write ``study.json``, ``study.md`` and ``scatter.png``."""
    chosen, seeds = cells(), SEEDS
    if quick:
        chosen, seeds = [Cell(c.density, dataclasses.replace(c.recipe, steps=100), c.note) for c in chosen[:2]], 1
    begun, rows, drawn = time.monotonic(), [], []
    for number, cell in enumerate(chosen, 1):
        row, points = study_cell(cell, seeds)
        rows.append(row)
        drawn.append((cell, points))
        write_figures(output, rows, drawn, seeds, time.monotonic() - begun)  # a long study that is stopped is not lost
        console.print(
            f"{number}/{len(chosen)} {row['density']} K={row['K']}: score {row['score']:.3f}, "
            f"gaussian_score {row['gaussian_score']:.3f}, {row['seconds']:.0f} s",
            highlight=False,
        )
    console.print(rich_table(plain_rows(rows), heading(seeds)))
    console.print(f"{(time.monotonic() - begun) / 60:.1f} minutes; written to {output}")
    return rows


def heading(seeds: int) -> str:
    """What the table's figures are."""
    return f"Spearman correlation with log p on {POINTS:,} held-out points, median of {seeds} seeds"


def plain_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table's rows, without the figures of single seeds."""
    return [{name: value for name, value in row.items() if not isinstance(value, list | dict)} for row in rows]


def write_figures(
    output: Path,
    rows: list[dict[str, Any]],
    drawn: list[tuple[Cell, dict[str, np.ndarray]]],
    seeds: int,
    seconds: float,
) -> None:
    """``study.json``, ``study.md`` and ``scatter.png`` of the cells so far."""
    write_json(output / "study.json", "jepa-jax study synthetic", {"seconds": seconds, "seeds": seeds, "rows": rows})
    (output / "study.md").write_text(f"{heading(seeds)}\n\n{markdown_table(plain_rows(rows))}{READING}")
    draw_scatter(output / "scatter.png", drawn)


def study_cell(cell: Cell, seeds: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train, score and correlate: a row of the table, and the first seed's points for the plot."""
    begun = time.monotonic()
    trained = train_vectors(cell.density, cell.recipe, seeds)
    points = cell.density.sample(jax.random.key(77), POINTS)
    truth = np.asarray(cell.density.log_density(points))
    estimates = [estimates_of(trained, seed, points, cell.recipe) for seed in range(seeds)]
    spearman = {name: [rank_correlation(e[name], truth) for e in estimates] for name in estimates[0]}
    pearson = {name: [correlation(e[name], truth) for e in estimates] for name in estimates[0]}
    samples = np.asarray(cell.density.sample(jax.random.key(78), 5000))
    references = {name: rank_correlation(v, truth) for name, v in baselines(samples, np.asarray(points)).items()}
    row = {
        "density": cell.density.name,
        "varies": cell.note,
        "K": cell.recipe.outputs,
        "objective": type(cell.recipe.criterion).__name__,
        "noise": cell.recipe.noise,
        **{name: float(np.median(values)) for name, values in spearman.items()},
        "pearson": float(np.median(pearson["gaussian_score"])),
        **references,
        "seconds": time.monotonic() - begun,
        "spearman_by_seed": spearman,
        "pearson_by_seed": pearson,
    }
    return row, {"log p": truth} | estimates[0]


def estimates_of(trained: TrainedVectors, seed: int, points: jax.Array, recipe: Recipe) -> dict[str, np.ndarray]:
    """``score``, ``gaussian_score`` and ``views`` at points, [B] each."""
    found = score_vectors(trained, seed, points)
    noise = jax.random.normal(jax.random.key(seed), (COMBINED_VIEWS, *points.shape))
    views = points + recipe.noise * trained.scale * noise
    each = score_vectors(trained, seed, views.reshape(-1, points.shape[1]))["gaussian_score"].reshape(
        COMBINED_VIEWS, -1
    )
    return found | {"views": combine_views(each)}


def combine_views(scores: np.ndarray) -> np.ndarray:
    """-logmeanexp(-score) over views, [V, B] to [B]: p(x) is proportional to 1 / E[1 / prod sigma]."""
    return -(logsumexp(-scores, axis=0) - np.log(len(scores)))


def rank_correlation(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's rho; 0 where the estimate does not vary."""
    return correlation(rankdata(estimate), rankdata(truth))


def correlation(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's r; 0 where the estimate does not vary."""
    return float(np.corrcoef(estimate, truth)[0, 1]) if np.ptp(estimate) > 0 else 0.0


def draw_scatter(path: Path, drawn: list[tuple[Cell, dict[str, np.ndarray]]]) -> None:
    """Both scores against log p, one column per cell that varies K."""
    from matplotlib.figure import Figure

    chosen = [pair for pair in drawn if pair[0].note == "K"]
    chosen.sort(key=lambda pair: (pair[0].density.size, pair[0].recipe.outputs))
    if not chosen:
        return
    figure = Figure(figsize=(1.6 * len(chosen), 3.4), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    for column, (cell, points) in enumerate(chosen):
        for row, name in enumerate(("score", "gaussian_score")):
            axis = axes[row, column]
            axis.plot(points["log p"], points[name], ".", markersize=1)
            axis.tick_params(labelsize=5)
            if column == 0:
                axis.set_ylabel(name, fontsize=7)
        axes[0, column].set_title(f"{cell.density.name}, K={cell.recipe.outputs}", fontsize=7)
        axes[1, column].set_xlabel("log p", fontsize=7)
    figure.savefig(path, dpi=110)
