"""The same pictures through the command and through engines: ``python -m benchmarks.engines``.

2,000 drawn pictures are scored by jepa-tiny three times, each in a process of its own: by ``jepa-jax score``, by Ray
Data with two workers, and by ``datasets.map``. The largest difference of a score from the command's, and the seconds
that each took from start to end (starting, loading and compiling with it), are printed and written to
``benchmarks/results/engines-DATE/results.json``. Bar: 1e-5 nats.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from PIL import Image, ImageDraw

from benchmarks.places import RESULTS
from benchmarks.processes import call
from jepa_jax.provenance import describe, version

BAR = 1e-5
"""Nats."""

WORKERS = 2


def draw_pictures(folder: Path, count: int) -> None:
    """PNG and JPEG pictures of random shapes, of many sizes."""
    rng = np.random.default_rng(0)
    for i in range(count):
        width, height = (int(side) for side in rng.integers(40, 120, 2))
        picture = Image.new("RGB", (width, height), tuple(int(c) for c in rng.integers(0, 256, 3)))
        draw = ImageDraw.Draw(picture)
        for _ in range(int(rng.integers(2, 12))):
            x, y = sorted(rng.integers(0, width, 2).tolist()), sorted(rng.integers(0, height, 2).tolist())
            shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
            shape((x[0], y[0], x[1], y[1]), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
        picture.save(folder / f"{i:05d}.{('png', 'jpg')[i % 2]}")


def by_ray(folder: str) -> dict[str, float]:
    """File name to score."""
    import ray
    import ray.data

    from jepa_jax.batch_scorer import BatchScorer

    ray.init(num_cpus=WORKERS, include_dashboard=False, object_store_memory=200 * 2**20, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    files = ray.data.read_binary_files(folder, include_paths=True, override_num_blocks=8)
    scored = files.map_batches(
        BatchScorer,
        fn_constructor_kwargs={"column": "bytes", "keep": ["path"]},
        compute=ray.data.ActorPoolStrategy(size=WORKERS),
        num_cpus=0.5,  # of each: the tasks that read need some as well
        batch_size=256,
        batch_format="pyarrow",
    )
    rows = scored.take_all()
    ray.shutdown()
    return {Path(row["path"]).name: row["score"] for row in rows}


def by_datasets(folder: str) -> dict[str, float]:
    """File name to score."""
    import datasets

    from jepa_jax.batch_scorer import BatchScorer

    paths = sorted(map(str, Path(folder).iterdir()))
    data = datasets.Dataset.from_dict({"image": paths, "path": paths}).cast_column("image", datasets.Image())
    scored = data.map(BatchScorer(keep=["path"]), batched=True, batch_size=256)
    return {Path(path).name: score for path, score in zip(scored["path"], scored["score"], strict=True)}


def main() -> None:
    """Score with each, compare, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=2000)
    arguments = parser.parse_args()
    facts = describe() | {name: version(name) for name in ("ray", "datasets", "pillow", "pyarrow")}
    engines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder, output = Path(name) / "in", Path(name) / "out"
        folder.mkdir()
        draw_pictures(folder, arguments.records)
        begun = time.monotonic()
        command = [sys.executable, "-m", "jepa_jax", "score", str(folder), "--output", str(output)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        command_seconds = time.monotonic() - begun
        table = ds.dataset(sorted(map(str, output.rglob("part-*.parquet")))).to_table(columns=["key", "score"])
        expected = dict(zip(table["key"].to_pylist(), table["score"].to_pylist(), strict=True))
        for engine, function in (("ray data", "by_ray"), ("datasets.map", "by_datasets")):
            begun = time.monotonic()
            found = call(f"benchmarks.engines:{function}", {"folder": str(folder)})
            seconds = time.monotonic() - begun
            if found.keys() != expected.keys():
                raise SystemExit(f"{engine} scored {len(found)} pictures, the command {len(expected)}")
            difference = max(abs(found[key] - expected[key]) for key in expected)
            engines.append({"engine": engine, "largest_difference_nats": difference, "seconds": seconds})
            print(json.dumps(engines[-1]))
    result = {
        "environment": facts,
        "encoder": "jepa-tiny",
        "records": arguments.records,
        "scored": len(expected),
        "command_seconds": command_seconds,
        "workers_of_ray": WORKERS,
        "engines": engines,
        "bar_nats": BAR,
        "holds": all(row["largest_difference_nats"] <= BAR for row in engines),
    }
    directory = RESULTS / f"engines-{facts['date']}"
    directory.mkdir(exist_ok=True)
    (directory / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"command {command_seconds:.1f} s; within {BAR:g} nats: {result['holds']}")


if __name__ == "__main__":
    main()
