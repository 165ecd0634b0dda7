"""`python -m studies.known_worlds --output DIR`: the trial of PROTOCOL.md."""

from __future__ import annotations

import argparse
import functools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jepa_jax.markdown import markdown_lines
from jepa_jax.studies.correlations import rank_correlation
from jepa_jax.studies.outputs import Ledger, write_json
from jepa_jax.training.objectives import VICReg
from studies.known_worlds.diagnostics import against_truth, blind, verdict
from studies.known_worlds.training import Recipe, determinant_signs, embeddings, train
from studies.known_worlds.worlds import world

COMMAND = "python -m studies.known_worlds --output benchmarks/results/study-known-worlds"
SEEDS = (1, 2, 3)
POINTS, BLIND_POINTS, FITTED_POINTS = 1000, 4000, 5000
SIGNS = 1000


@dataclass(frozen=True)
class Cell:
    """One kind of world, and how encoders of it are trained."""

    mixing: str
    size: int
    recipe: Recipe = field(default_factory=Recipe)
    latents: str = "normal"

    @property
    def name(self) -> str:
        objective = "VICReg" if isinstance(self.recipe.criterion, VICReg) else "LeJEPA"
        return f"{self.mixing} {self.size}, {self.latents}, {self.recipe.views} views, {objective}"


def cells() -> list[Cell]:
    """The protocol's."""
    wide, noise = Recipe(width=256), Recipe(views="noise")
    rows = [Cell(mixing, 2) for mixing in ("spiral", "banana", "sinusoid", "coupling")]
    rows += [Cell("sinusoid", 8), Cell("coupling", 8)]
    rows += [Cell(mixing, 32) for mixing in ("banana", "coupling", "linear")]
    rows += [Cell("sinusoid", 128, wide), Cell("coupling", 256, wide), Cell("sinusoid", 8, latents="laplace")]
    noisy = (("spiral", 2), ("sinusoid", 8), ("coupling", 8), ("coupling", 32))
    rows += [Cell(mixing, size, noise) for mixing, size in noisy]
    return [*rows, Cell("coupling", 8, Recipe(VICReg()))]


def run(cell: Cell, seed: int) -> dict[str, Any]:
    """Train, compare with the truth, and look without it."""
    begun = time.monotonic()
    place = world(cell.mixing, cell.size, seed, cell.latents)
    trained, untrained = train(place, cell.recipe, seed)
    latents = place.draw(jax.random.key(1000 + seed), POINTS)
    points, truth = place.mix(latents)[0], np.asarray(place.log_density(latents))
    others = place.mix(place.draw(jax.random.key(4000 + seed), BLIND_POINTS))[0]
    scores, before = trained.scores(points), untrained.scores(points)
    figures = {
        "gaussian_score": against_truth(scores["gaussian_score"], truth),
        "score": against_truth(scores["score"], truth),
        "untrained gaussian_score": against_truth(before["gaussian_score"], truth),
        "untrained score": against_truth(before["score"], truth),
        "random numbers": against_truth(np.random.default_rng(seed).normal(truth.mean(), truth.std(), POINTS), truth),
    }
    fitted = np.asarray(place.mix(place.draw(jax.random.key(2000 + seed), FITTED_POINTS))[0])
    figures |= {name: against_truth(e, truth) for name, e in baselines(fitted, np.asarray(points)).items()}
    spread = float(np.std(truth))
    return {
        "spread": spread,
        "figures": figures,
        "verdict": verdict(figures["gaussian_score"], spread),
        "blind": blind(embeddings(trained, others), determinant_signs(trained, others[:SIGNS])),
        "untrained_blind": blind(embeddings(untrained, others), determinant_signs(untrained, others[:SIGNS])),
        "seconds": round(time.monotonic() - begun, 1),
    }


def baselines(samples: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    """One Gaussian, and the distance to the 20th neighbour, of samples [N, D] at points [B, D]."""
    from scipy.stats import multivariate_normal
    from sklearn.neighbors import NearestNeighbors

    normal = multivariate_normal(samples.mean(axis=0), np.cov(samples.T))  # pyright: ignore[reportArgumentType]
    distances = NearestNeighbors(n_neighbors=20).fit(samples).kneighbors(points)[0][:, -1]
    return {"fitted_gaussian": normal.logpdf(points), "knn": -samples.shape[1] * np.log(distances)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/study-known-worlds"))
    parser.add_argument("--cells", type=int, help="the first so many: does it run?")
    options = parser.parse_args()
    ledger, rows = Ledger(options.output / "runs.jsonl"), []
    for cell in cells()[: options.cells]:
        runs = [ledger.get(f"{cell.name} seed={seed}", functools.partial(run, cell, seed)) for seed in SEEDS]
        rows.append({"cell": cell.name, "runs": runs})
        first = runs[0]["figures"]["gaussian_score"]
        print(cell.name, [r["verdict"] for r in runs], f"slope {first['slope']:.2f} r2 {first['r2']:.2f}", flush=True)
    figures = {"rows": rows, "diagnostic": diagnostic(rows)}
    figures["minutes"] = round(sum(r["seconds"] for row in rows for r in row["runs"]) / 60, 1)
    write_json(options.output / "study.json", COMMAND, figures)
    (options.output / "study.md").write_text(page(figures))
    print(page(figures))


def diagnostic(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Does what is seen without the truth follow the error?"""

    def rank(chosen: list[dict[str, Any]], name: str) -> float:
        runs = [r for row in chosen for r in row["runs"]]
        return rank_correlation(
            np.array([r["blind"][name] for r in runs]),
            np.array([r["figures"]["gaussian_score"]["error"] for r in runs]),
        )

    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name in ("c2st", "folding", "sigreg"):
        draws = [rank([rows[i] for i in rng.integers(len(rows), size=len(rows))], name) for _ in range(1000)]
        low, high = np.quantile(draws, [0.025, 0.975])
        found[name] = {"spearman with the error": rank(rows, name), "interval": [float(low), float(high)]}
    runs = [r for row in rows for r in row["runs"]]
    for kind in ("estimates", "between", "breaks"):
        some = [r for r in runs if r["verdict"] == kind]
        raised = sum(r["blind"]["c2st"] > 0.6 or r["blind"]["folding"] > 0.01 for r in some)
        found[kind] = {"runs": len(some), "raised": raised}
    return found


def page(figures: dict[str, Any]) -> str:
    """The figures for people."""

    def span(values: list[float], form: str = ".2f") -> str:
        return f"{np.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"

    table, controls = [], []
    for row in figures["rows"]:
        runs = row["runs"]

        def of(name: str, what: str, runs: list[dict[str, Any]] = runs) -> list[float]:
            return [r["figures"][name][what] for r in runs]

        relative = [o / r["spread"] for o, r in zip(of("gaussian_score", "offset"), runs, strict=True)]
        table.append(
            [
                row["cell"],
                *(span(of("gaussian_score", what)) for what in ("slope", "r2")),
                span(relative),
                span(of("gaussian_score", "spearman")),
                span(of("score", "spearman")),
                span([r["blind"]["c2st"] for r in runs]),
                span([r["blind"]["folding"] for r in runs], ".3f"),
                ", ".join(r["verdict"] for r in runs),
            ]
        )
        names = ("untrained gaussian_score", "untrained score", "fitted_gaussian", "knn", "random numbers")
        controls.append([row["cell"], *(span(of(name, "spearman")) for name in names)])
    columns = ["cell", "slope", "R^2", "offset / sd of log p", "Spearman", "Spearman of score", "c2st", "folding"]
    lines = [
        "# Known worlds",
        "",
        f"`gaussian_score` against the true log p; means over three seeds, and their range. Made by `{COMMAND}`; the "
        "protocol is `studies/known_worlds/PROTOCOL.md`; intervals over points are in study.json.",
        "",
        *markdown_lines([*columns, "verdicts"], table),
        "",
        "## Controls and baselines: Spearman with log p",
        "",
        *markdown_lines(
            ["cell", "untrained gaussian_score", "untrained score", "fitted Gaussian", "kNN", "random numbers"],
            controls,
        ),
        "",
        "## The diagnostic without the truth",
        "",
    ]
    for name, row in figures["diagnostic"].items():
        if "interval" in row:
            low, high = row["interval"]
            lines.append(
                f"- {name}: Spearman with the error {row['spearman with the error']:+.2f} [{low:+.2f}, {high:+.2f}]"
            )
        else:
            lines.append(f"- of {row['runs']} runs that are *{name}*, {row['raised']} were raised")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
