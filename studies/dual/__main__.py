"""`python -m studies.dual --data DATA --output DIR`: the trial of PROTOCOL.md."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from jepa_jax.encoders.drawn import random_encoder
from jepa_jax.loading import load_encoder
from jepa_jax.markdown import markdown_lines
from jepa_jax.scored.reading import read_table
from jepa_jax.studies.outputs import write_json
from studies.dual.sets import CIFAR10, DAMAGED, SETS, scored
from studies.dual.trial import BAR, PARTS, STATISTICS, controls, false_alarms, holds, pair, points_of

COMMAND = "python -m studies.dual --data DATA --output benchmarks/results/study-dual"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/study-dual"))
    parser.add_argument("--scored", type=Path, default=Path("build/study-dual"), help="where spectra are kept")
    options = parser.parse_args()
    begun = time.monotonic()
    tiny = load_encoder("jepa-tiny")
    encoders = {"jepa-tiny": tiny, "untrained": random_encoder(tiny.spec, 0)}
    figures: dict[str, Any] = {"pairs": {}, "holds": {}}
    in_sets = {}
    for label, encoder in encoders.items():
        tables = {name: scored(encoder, label, options.data, name, options.scored) for name in (*SETS, *DAMAGED)}
        points = {name: points_of(table) for name, table in tables.items()}
        in_sets |= {f"{label}/{name}": values for name, values in points.items()}
        names = [(a, b) for a in SETS for b in SETS if a != b] + [(CIFAR10, name) for name in DAMAGED]
        figures["pairs"][label] = {f"{a} against {b}": pair(points[a], points[b]) for a, b in names}
        figures["holds"][label] = holds(figures["pairs"][label])
        figures.setdefault("controls", {})[label] = controls(points[CIFAR10])
        print(label, figures["holds"][label]["dual"], flush=True)
    for model in ("vits14", "vitb14"):
        sets = ("cifar10", "svhn")
        files = (options.data / "spectra" / f"dinov2_{model}_{name}.npz" for name in sets)
        inside, outside = (points_of(read_table(path, null_directions=2)) for path in files)
        in_sets |= {f"{model}/cifar10": inside}
        figures["pairs"].setdefault("published", {})[f"{model}, cifar10 against svhn"] = pair(inside, outside)
    figures["false_alarms"] = {name: false_alarms(in_sets, name) for name in ("dual", "dual_one_sided")}
    figures["minutes"] = round((time.monotonic() - begun) / 60, 1)
    write_json(options.output / "study.json", COMMAND, figures)
    (options.output / "study.md").write_text(page(figures))
    print(page(figures))


def page(figures: dict[str, Any]) -> str:
    """The figures for people."""
    names = (*PARTS, *STATISTICS)
    lines = [
        "# The dual test, tried",
        "",
        f"AUROC, 1 = the in-set always more typical; means over ten splits of the in-set. A statistic holds where it "
        f"is no more than {BAR} below the better of score and effective rank. Made by `{COMMAND}`; the protocol is "
        "`studies/dual/PROTOCOL.md`.",
    ]
    for label, found in figures["holds"].items():
        rows = [[n, f"{r['holds']} of {r['of']}", f"{r['mean']:+.3f}", f"{r['worst']:+.3f}"] for n, r in found.items()]
        lines += ["", f"## {label}", "", *markdown_lines(["statistic", "holds", "mean regret", "worst"], rows)]
    for label, pairs in figures["pairs"].items():
        rows = []
        for title, row in pairs.items():
            low, high = row["interval"]["dual"]
            cells = [f"{row['auroc'][n]:.3f}" for n in names]
            rows.append([title, *cells, f"[{low:.3f}, {high:.3f}]", f"{row['regret']['dual']:+.3f}"])
        columns = ["pair", *names, "dual, 95% of one split", "regret of dual"]
        lines += ["", f"## Pairs: {label}", "", *markdown_lines(columns, rows)]
    lines += ["", "## False alarms", ""]
    rows = [
        [name, rate, f"{row['share']:.4f}", f"[{row['interval'][0]:.4f}, {row['interval'][1]:.4f}]"]
        for name, found in figures["false_alarms"].items()
        for rate, row in found["rates"].items()
    ]
    lines += markdown_lines(["test", "promised", "share", "99% binomial interval of the promise"], rows)
    lines += ["", "## Controls", ""]
    rows = [
        [f"{label}: {name}", *(f"{values[n]:.3f}" for n in names)]
        for label, found in figures["controls"].items()
        for name, values in found.items()
    ]
    lines += markdown_lines(["control", *names], rows)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
