"""`jepa-jax study synthetic`: scores against log p, where log p is known.

Recipes were chosen on the mixtures of seeds 0 and 10 to 12, with the training seeds 100 to 103 and points of their
own. What is reported has other starts, other training data and other points (`SEEDS`). Mixtures are those of seed 0,
the same for all seeds, but for the rows that say ``drawn anew``: there every seed has a mixture of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jepa_jax.images.views import combine_views
from jepa_jax.studies.correlations import correlation, rank_correlation
from jepa_jax.studies.densities import Density, correlated_gaussian, random_mixture, ring, student, two_spirals
from jepa_jax.studies.density_estimators import estimate_log_densities
from jepa_jax.studies.outputs import Ledger, rich_table, study_progress
from jepa_jax.studies.synthetic_pages import median_row, shown, write_pages
from jepa_jax.studies.vectors import Recipe, TrainedVectors, train_vectors
from jepa_jax.training.objectives import LeJEPA, VICReg

SEEDS = (1, 2, 3)
"""Each has its own start, training data, and held-out points; and its own density in the rows ``drawn anew``."""

POINTS = 1000
"""Held-out points of each seed."""

BASELINE_SAMPLES = 5000
COMBINED_VIEWS = 8
DRAWN_POINTS = 400


@dataclass(frozen=True)
class Cell:
    """One row of the study.

    Attributes:
        density: the truth, for a seed.
        recipe: of the encoders.
        note: what varies here.
    """

    density: Callable[[int], Density]
    recipe: Recipe
    note: str = ""


# Where K > D, the encoder must leave the plane that a linear map would give it: depth serves, a shortcut hinders.
# Where K <= D, an isometry is nearly right (whitening alone gives the fitted Gaussian), and what is left is curvature.
WIDE = Recipe(outputs=8, steps=3000)
EQUAL = Recipe(
    outputs=8, criterion=LeJEPA(0.02, 32), noise=0.05, residual=True, hidden=(128, 128), steps=1500, batch_size=1024
)
LARGE = dataclasses.replace(EQUAL, outputs=32, criterion=LeJEPA(0.02, 64), steps=600)


def fixed(density: Density) -> Callable[[int], Density]:
    """The same density for every seed."""
    return lambda seed: density


def cells() -> list[Cell]:
    """The whole study."""

    def vary(density: Callable[[int], Density], recipe: Recipe, note: str, **changes: Any) -> Cell:
        return Cell(density, dataclasses.replace(recipe, **changes), note)

    plane, space, large = (fixed(random_mixture(size)) for size in (2, 8, 32))
    rows = [vary(plane, EQUAL, "K", outputs=k) for k in (1, 2)]
    rows += [vary(plane, WIDE, "K", outputs=k) for k in (4, 8, 16)]
    rows += [vary(space, EQUAL, "K", outputs=k) for k in (4, 8)] + [vary(space, WIDE, "K", outputs=16)]
    rows += [vary(large, LARGE, "K", outputs=k) for k in (16, 32)] + [vary(large, WIDE, "K", outputs=64, steps=600)]
    anew = ((2, WIDE), (8, EQUAL), (32, LARGE))
    rows += [Cell(functools.partial(random_mixture, size), recipe, "drawn anew") for size, recipe in anew]
    rows += [vary(plane, WIDE, "noise", noise=noise) for noise in (0.03, 0.3)]
    rows += [vary(space, EQUAL, "noise", noise=noise) for noise in (0.0, 0.2)]
    rows += [vary(plane, WIDE, "objective", criterion=c) for c in (LeJEPA(0.05, 32), VICReg())]
    rows += [vary(space, EQUAL, "objective", criterion=VICReg())]
    line = fixed(random_mixture(1))
    rows += [vary(line, EQUAL, "density", outputs=1), vary(line, WIDE, "density")]
    rows += [vary(fixed(curve), WIDE, "density", noise=0.03) for curve in (ring(), two_spirals())]
    for density in (fixed(correlated_gaussian(2)), fixed(student(2))):
        rows += [vary(density, EQUAL, "density", outputs=2), Cell(density, WIDE, "density")]
    rows += [Cell(fixed(density), EQUAL, "density") for density in (student(8), random_mixture(8, apart=8.0))]
    rows += [Cell(fixed(random_mixture(32, apart=16.0)), LARGE, "density")]
    many = (correlated_gaussian(64), random_mixture(64))
    rows += [vary(fixed(density), LARGE, "density", outputs=64) for density in many]
    return rows


def run_synthetic(console: Console, output: Path, quick: bool) -> list[dict[str, Any]]:
    """Run every cell, or what is left of them, print the table, and write it with its plots."""
    chosen, seeds = cells(), SEEDS
    if quick:
        chosen, seeds = [Cell(c.density, dataclasses.replace(c.recipe, steps=100), c.note) for c in chosen[:2]], (1,)
    ledger, rows, begun = Ledger(output / "cells.jsonl"), [], time.monotonic()
    with study_progress(console) as progress:
        task = progress.add_task("encoders", total=len(chosen) * len(seeds))
        for number, cell in enumerate(chosen, 1):
            runs = []
            for seed in seeds:
                name = f"{cell.density(seed).name} {cell.note} seed={seed} points={POINTS} {cell.recipe}"
                runs.append(ledger.get(name, functools.partial(study_run, cell, seed)))
                progress.advance(task)
            rows.append(row := median_row(cell.note, cell.recipe, runs))
            progress.console.print(
                f"{number}/{len(chosen)} {row['density']} K={row['K']}: score {row['score']:.3f}, "
                f"gaussian_score {row['gaussian_score']:.3f}, {row['seconds']:.0f} s",
                highlight=False,
            )
            write_pages(output, rows, len(seeds), POINTS)
    console.print(rich_table(shown(rows), "Spearman correlations with log p, medians over seeds"))
    console.print(f"{(time.monotonic() - begun) / 60:.1f} minutes; written to {output}")
    return rows


def study_run(cell: Cell, seed: int) -> dict[str, Any]:
    """Train, score and correlate, for one seed."""
    begun = time.monotonic()
    density = cell.density(seed)
    trained = train_vectors(density, cell.recipe, seed)
    points = density.sample(jax.random.key(1000 + seed), POINTS)
    truth = np.asarray(density.log_density(points))
    estimates = estimates_of(trained, cell.recipe, points, jax.random.key(3000 + seed))
    references = reference_correlations(cell.density, seed)
    return {
        "density": density.name,
        "spearman": {name: rank_correlation(values, truth) for name, values in estimates.items()} | references,
        "pearson": {name: correlation(values, truth) for name, values in estimates.items()},
        "slope": float(np.polyfit(truth, estimates["gaussian_score"], 1)[0]),
        "seconds": time.monotonic() - begun,
        "points": {
            name: np.round(values[:DRAWN_POINTS], 3).tolist() for name, values in {"log p": truth, **estimates}.items()
        },
    }


@functools.lru_cache(maxsize=8)
def reference_correlations(maker: Callable[[int], Density], seed: int) -> dict[str, float]:
    """Rank correlations of the baselines, fitted to samples that are none of the points."""
    density = maker(seed)
    points = density.sample(jax.random.key(1000 + seed), POINTS)
    truth = np.asarray(density.log_density(points))
    samples = np.asarray(density.sample(jax.random.key(2000 + seed), BASELINE_SAMPLES))
    found = estimate_log_densities(samples, np.asarray(points))
    return {name: rank_correlation(values, truth) for name, values in found.items()}


def estimates_of(trained: TrainedVectors, recipe: Recipe, points: jax.Array, key: jax.Array) -> dict[str, np.ndarray]:
    """All that an encoder says about points [B, D], and both scores of several views combined; [B] each."""
    noise = jax.random.normal(key, (COMBINED_VIEWS, *points.shape))
    views = points + recipe.noise * trained.units.scale * noise
    stacked = trained.scores(jax.numpy.concatenate([points[None], views]).reshape(-1, points.shape[1]))
    found = {name: values.reshape(1 + COMBINED_VIEWS, -1) for name, values in stacked.items()}
    combined = {f"{name}, views": combine_views(found[name][1:].T).score for name in ("score", "gaussian_score")}
    return {name: values[0] for name, values in found.items()} | combined
