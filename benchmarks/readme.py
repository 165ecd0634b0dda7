"""The README's performance table, rendered from the newest results: ``python -m benchmarks.readme [--check]``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.places import RESULTS, ROOT
from benchmarks.standings import best_jacrev, find
from benchmarks.tables import Column, about, number, table
from jepa_jax.numerics.precision import Precision

README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- benchmarks:begin -->\n).*?(<!-- benchmarks:end -->)", re.DOTALL)

NOTHING_YET = "No run is recorded yet: `python -m benchmarks.run --suite cpu`, then `python -m benchmarks.readme`.\n"


def main() -> None:
    """Write the table, or compare."""
    parser = argparse.ArgumentParser(description="Render the README's performance table from the newest results.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if it is not up to date")
    check = parser.parse_args().check
    old = README.read_text()
    new = rendered(old)
    if check and new != old:
        sys.exit(f"{README} does not show the newest results: python -m benchmarks.readme")
    if not check:
        README.write_text(new)


def rendered(readme: str) -> str:
    """The README with its block as the newest results make it."""
    if not BLOCK.search(readme):
        raise ValueError("the README has no <!-- benchmarks:begin --> ... <!-- benchmarks:end -->")
    parts = [section(folder, results) for folder, results in newest_runs()]
    return BLOCK.sub(lambda match: match[1] + ("\n".join(parts) or NOTHING_YET) + match[2], readme)


def newest_runs(folder: Path = RESULTS) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Of each suite the run that has raced most encoders, the newest of these, with its directory."""
    runs = [(path.parent, json.loads(path.read_text())) for path in folder.glob("*/results.json")]
    for suite in ("gpu", "cpu"):
        of_suite = [run for run in runs if run[1].get("suite") == suite]
        if of_suite:
            yield max(of_suite, key=lambda run: (_races(run[1]), run[1]["environment"]["begun"]))


def _races(results: dict[str, Any]) -> int:
    """How many encoders were raced."""
    stages = results.get("stages", {}).items()
    return sum(name.startswith("race") and outcome["results"] is not None for name, outcome in stages)


_HOW = {
    "cpu": " in float32, one image in a call",
    "gpu": ", PyTorch's one image with all singular values, jepa_jax's eight (dinov2-base: four) with scores alone",
}
"""What a call is, by suite."""

_GPU_LEVELS: tuple[Precision, ...] = ("float16", "float32")
"""Those that are shown of a GPU."""


def section(folder: Path, results: dict[str, Any]) -> str:
    """A run's races as one table, with where they were run."""
    races = [outcome["results"] for name, outcome in results["stages"].items() if name.startswith("race")]
    path = folder.relative_to(ROOT)
    return (
        f"{table(_columns(results['suite']), [_row(race) for race in races if race.get('contestants')])}\n\n"
        f"Seconds per image{_HOW[results['suite']]}, and how many times faster than the paper's listing that is: "
        "random weights, contestants taking turns, medians. "
        f"{about(results['environment'])} Everything else that was measured, levels, errors, memory and growth among "
        f"it: [{path}]({path}/README.md).\n"
    )


def _row(race: dict[str, Any]) -> dict[str, Any]:
    rows = race["contestants"]
    return {
        "encoder": f"{race['model']}, {race['image_size']} px",
        "listing": find(rows, "paper's listing"),
        "jacrev": best_jacrev(rows),
        "generic": find(rows, "jepa_jax generic"),
        "rules": find(rows, "jepa_jax rules"),
        "per core": find(rows, "jepa_jax rules, one image per core"),
    } | {level: _side_by_side(rows, level) for level in _GPU_LEVELS}


def _side_by_side(rows: list[dict[str, Any]], level: Precision) -> dict[str, Any] | None:
    """Ours at a level as jobs score: several images in a call, and scores alone."""
    ours = (row for row in rows if row["way"] == "rules" and row["precision"] == level and row["seconds"])
    return next((row for row in ours if row["images"] > 1 and not row["values"]), None)


def _columns(suite: str) -> list[Column]:
    def seconds(key: str) -> Any:
        def show(row: dict[str, Any]) -> str:
            found = row[key]
            if found is None:
                return ""
            faster = found["faster_than_listing"]
            return number(found["seconds_median"]) + (f" ({number(faster)}x)" if faster and key != "listing" else "")

        return show

    ours = {
        "cpu": [
            ("jepa_jax, any function", seconds("generic")),
            ("jepa_jax, its encoders", seconds("rules")),
            ("one image per core", seconds("per core")),
        ],
        "gpu": [(f"jepa_jax, {level}", seconds(level)) for level in _GPU_LEVELS],
    }
    return [
        ("encoder", lambda row: row["encoder"]),
        ("paper's listing", seconds("listing")),
        ("best `torch.func.jacrev`", seconds("jacrev")),
        *ours[suite],
    ]


if __name__ == "__main__":
    main()
