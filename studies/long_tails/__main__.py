"""`python -m studies.long_tails --data DIR --output DIR`: the trial of PROTOCOL.md."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from jepa_jax.markdown import markdown_lines
from jepa_jax.studies.controlled import interval, mean_interval
from jepa_jax.studies.outputs import Ledger, write_json
from studies.long_tails.kinds import classes, combinations
from studies.long_tails.rules import means_of

COMMAND = "python -m studies.long_tails --data DATA --output benchmarks/results/study-long-tails"
SEEDS = (1, 2, 3)
STEPS = 300
NOTHING = {"frequency": 0.0, "unseen": 0.5}
CONTROLS = ("reference", "untrained", "two references")


def main() -> None:
    """Train what is missing, judge, and write ``study.json`` and ``study.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/study-long-tails"))
    parser.add_argument("--work", type=Path, default=Path("build/study-long-tails"), help="what it goes on from")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each encoder; fewer: does it run?")
    options = parser.parse_args()
    begun = time.monotonic()
    ledger = Ledger(options.work / "means.jsonl")
    figures: dict[str, Any] = {"steps": options.steps, "seeds": SEEDS}
    for kinds in (combinations(), classes(options.data / "cifar10_subset.npz")):
        found = []
        for seed in SEEDS:
            means = {
                name: ledger.get(
                    f"{kinds.name} {name} seed={seed} steps={options.steps}",
                    lambda name=name, seed=seed, kinds=kinds: means_of(name, kinds, seed, options.steps),
                )
                for name in ("pool", "longer", "reference", "untrained")
            }
            found.append({name: {k: np.array(v) for k, v in some.items()} for name, some in means.items()})
            print(
                kinds.name, seed, {n: round(f, 3) for n, f in kinds.figures(seed, found[-1]["pool"]["score"]).items()}
            )
        by_seed = [
            {rule: kinds.figures(seed, means) for rule, means in rules(found, i).items()}
            for i, seed in enumerate(SEEDS)
        ]
        figures[kinds.name] = summary(by_seed)
    figures["minutes of this call"] = round((time.monotonic() - begun) / 60, 1)
    write_json(options.output / "study.json", COMMAND, figures)
    (options.output / "study.md").write_text(page(figures))
    print(page(figures))


def rules(found: list[dict[str, dict[str, np.ndarray]]], seed: int) -> dict[str, np.ndarray]:
    """What every rule makes of the kinds [C], of one seed's encoders and, for a control, the next one's reference."""
    pool, reference = found[seed]["pool"], found[seed]["reference"]
    other = found[(seed + 1) % len(found)]["reference"]
    return {
        "score": pool["score"],
        "gaussian_score": pool["gaussian_score"],
        "longer": found[seed]["longer"]["score"],
        "views": pool["views"],
        "dual": pool["dual"],
        "difference": pool["score"] - reference["score"],
        "gaussian difference": pool["gaussian_score"] - reference["gaussian_score"],
        "reference": reference["score"],
        "untrained": found[seed]["untrained"]["score"],
        "two references": reference["score"] - other["score"],
    }


def summary(by_seed: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Mean and interval of each rule's figures over the seeds, and of what it gains over the score."""
    found: dict[str, Any] = {}
    for rule in by_seed[0]:
        found[rule] = {}
        for name in by_seed[0][rule]:
            own = np.array([some[rule][name] for some in by_seed])
            gain = own - np.array([some["score"][name] for some in by_seed])
            found[rule][name] = {"mean": float(own.mean()), "interval": interval(own)}
            if rule != "score":
                found[rule][name] |= {"gain": float(gain.mean()), "gain_interval": mean_interval(gain)}
    return found


def by_protocol(of_rules: dict[str, Any], rule: str, name: str) -> str:
    """What the protocol says of a rule's figure: whether it sees the thing, and helps beyond the score."""
    row = of_rules[rule][name]
    low, high = of_rules["two references"][name]["interval"]
    said = []
    if row["interval"][0] > NOTHING[name] and low <= NOTHING[name] <= high:
        said.append("sees")
    if "gain" in row and row["gain_interval"][0] > 0:
        said.append("helps")
    return " and ".join(said)


def page(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        "# Long tails and the unseen",
        "",
        f"Made by `{COMMAND}`; the protocol is `studies/long_tails/PROTOCOL.md`. {len(SEEDS)} seeds, "
        f"{figures['steps']} steps an encoder; 95% intervals of means over the seeds.",
    ]
    for title in ("combinations", "classes"):
        rows = []
        for rule, of_rule in figures[title].items():
            for name, row in of_rule.items():
                low, high = row["interval"]
                gain = ""
                if "gain" in row:
                    least, most = row["gain_interval"]
                    gain = f"{row['gain']:+.3f} [{least:+.3f}, {most:+.3f}]"
                kind = "control" if rule in CONTROLS else "under trial"
                said = by_protocol(figures[title], rule, name)
                rows.append([kind, rule, name, f"{row['mean']:.3f} [{low:.3f}, {high:.3f}]", gain, said])
        columns = ["kind", "rule", "figure", "mean", "gain over the score", "by the protocol"]
        lines += ["", f"## {title.capitalize()}", "", *markdown_lines(columns, rows)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
