"""`python -m studies.openood BENCHMARK --root DATA --model NAME --output DIR`. See README.md."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jepa_jax.analysis.evaluation import Evaluation, evaluate
from jepa_jax.analysis.evaluation_output import to_dict, to_markdown
from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.progress.console import Quiet
from jepa_jax.loading import load_encoder
from jepa_jax.markdown import markdown_lines
from jepa_jax.scored.reading import read_table
from jepa_jax.scored.table import ScoreTable
from jepa_jax.studies.outputs import write_json
from studies.openood.presets import BENCHMARKS, Benchmark, ImageList


def run(encoder: Encoder, benchmark: Benchmark, root: Path, output: Path, images: int | None = None) -> Evaluation:
    """Score what is left to score, judge, and write ``openood.json`` and ``openood.md``."""

    def table(images_of: ImageList) -> ScoreTable:
        print(f"{images_of.name}: scoring", flush=True)
        return scored(encoder, images_of, root, output / "scores" / images_of.file.removesuffix(".txt"), images)

    reference, inside = table(benchmark.training), table(benchmark.test)
    result = evaluate(inside, [table(o) for o in (*benchmark.near, *benchmark.far)], reference=reference)
    means = group_means(result, benchmark)
    command = f"python -m studies.openood {benchmark.name} --model {encoder.spec.name} --images {images or 'all'}"
    write_json(output / "openood.json", command, to_dict(result) | {"means": means})
    names = list(next(iter(means.values())))
    rows = [[group, *(f"{values[name]:.3f}" for name in names)] for group, values in means.items()]
    page = ["## AUROC, means over sets", "", *markdown_lines(["sets", *names], rows)]
    (output / "openood.md").write_text(to_markdown(result) + "\n" + "\n".join(page) + "\n")
    return result


def scored(encoder: Encoder, images: ImageList, root: Path, output: Path, count: int | None) -> ScoreTable:
    """The table of a list's pictures, by a job that goes on where it was stopped."""
    rows = images.drawn(root, count)
    output.mkdir(parents=True, exist_ok=True)
    listed = output / "pictures.csv"
    with listed.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "path", "label"])
        folder = (root / images.folder).resolve()
        writer.writerows([picture, str(folder / picture), label] for picture, label in rows)
    options = JobOptions(columns=("singular_values", "embedding"))
    run_job(encoder, open_source(listed), output / "job", Quiet(), options)
    return read_table(output / "job", name=images.name)


def group_means(result: Evaluation, benchmark: Benchmark) -> dict[str, dict[str, float]]:
    """Mean AUROC of every statistic over the near sets and over the far ones."""
    found: dict[str, dict[str, Any]] = {}
    for group, lists in (("near", benchmark.near), ("far", benchmark.far)):
        names = [row.statistic for row in result.rows if row.out == lists[0].name]
        found[group] = {
            name: float(np.mean([result.find(one.name, name).result.auroc.value for one in lists])) for name in names
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--root", type=Path, required=True, help="OpenOOD's data folder")
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=int, help="of each list, drawn at random; by default all")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        encoder = load_encoder(options.model, image_size=options.image_size)
        run(encoder, BENCHMARKS[options.benchmark], options.root, options.output, options.images)
    except (ArgumentError, JobError) as error:
        sys.exit(f"error: {error}")
    print((options.output / "openood.md").read_text())


if __name__ == "__main__":
    main()
