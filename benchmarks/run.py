"""Race the exact score against PyTorch on this machine: ``python -m benchmarks.run --image-size 112``.

All contestants take turns in one process, so that a busy machine is unfair to all alike. Medians are
printed as a table and written with device, versions and commit under ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from datetime import date
from pathlib import Path
from typing import Any

import jax
import torch

from benchmarks import peers

RESULTS = Path(__file__).parent / "results"


def race(image_size: int, rounds: int, chunk_sizes: tuple[int, ...] = (16, 32, 64)) -> list[dict[str, Any]]:
    """Seconds per image of every contestant, median and extremes over some rounds after a warm-up."""
    if jax.default_backend() != "cpu":
        raise SystemExit("PyTorch would run on the CPU here and JAX elsewhere: set JAX_PLATFORMS=cpu for a fair race.")
    contest = peers.dinov2_small(image_size)
    contestants = {"paper's listing (PyTorch)": peers.torch_listing(contest)}
    contestants |= {f"torch.func.jacrev, {n} rows": peers.torch_jacrev(contest, n) for n in chunk_sizes}
    contestants |= {f"jepa_jax {engine}": peers.ours(contest, engine) for engine in ("generic", "rules")}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    scores = {}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            begun = time.perf_counter()
            scores[name] = run()
            if turn:  # the first turn compiles and warms up
                seconds[name].append(time.perf_counter() - begun)
    listing = statistics.median(seconds["paper's listing (PyTorch)"])
    return [
        {
            "contestant": name,
            "seconds_median": statistics.median(times),
            "seconds_min": min(times),
            "seconds_max": max(times),
            "times_faster_than_listing": listing / statistics.median(times),
            "listing_score": scores[name],
        }
        for name, times in seconds.items()
    ]


def environment() -> dict[str, Any]:
    """Device, versions and commit, so that a figure can be repeated."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
        "date": date.today().isoformat(),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The results as a table."""
    lines = ["| contestant | seconds per image | min to max | faster than the listing |", "|---|---|---|---|"]
    lines += [
        f"| {row['contestant']} | {row['seconds_median']:.2f} | {row['seconds_min']:.2f} to {row['seconds_max']:.2f} "
        f"| {row['times_faster_than_listing']:.1f}x |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the race and write its results."""
    parser = argparse.ArgumentParser(description="Race the exact score against PyTorch.")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    facts = environment() | {"model": "dinov2-small, random weights", "image_size": arguments.image_size}
    rows = race(arguments.image_size, arguments.rounds)
    name = f"{facts['device']}-{facts['date']}-{arguments.image_size}px"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"environment": facts, "results": rows}, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
