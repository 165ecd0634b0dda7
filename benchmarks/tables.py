"""A run's results as Markdown; ``python -m benchmarks.tables DIRECTORY`` writes those of an earlier run anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import bars
from benchmarks.standings import disagreements

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def write_tables(results: Row, output: Path) -> None:
    """Write ``README.md`` beside the results."""
    (output / "README.md").write_text(render(results, [path.name for path in sorted(output.glob("*.svg"))]))


def render(results: Row, plots: Sequence[str] = ()) -> str:
    """The whole page."""
    facts = results["environment"]
    # Notes are what somebody who looked at the results has written beside them.
    sections = [f"# Suite {results['suite']}, {facts['date']}", about(facts), *results.get("notes", ())]
    promises = bars(results)
    if promises:
        columns: list[Column] = [
            ("promise", lambda row: row["promise"]),
            ("measured", lambda row: number(row["measured"])),
            ("wanted", lambda row: row["wanted"]),
            ("met", lambda row: "yes" if row["met"] else "**no**"),
        ]
        sections += ["## Promises", table(columns, [vars(bar) for bar in promises])]
    for name, outcome in results["stages"].items():
        sections.append(f"## {name}")
        if outcome["status"] != "done":
            sections.append(f"Failed: {outcome['reason']}.")
        if outcome["results"]:
            sections += _RENDERERS[name.split("-")[0]](outcome["results"])
        sections += [f"![{plot}]({plot})" for plot in plots if plot.startswith(f"{name}.")]
        sections.append(f"Took {outcome['seconds']:.0f} s; load average before it {outcome['load_average']:.1f}.")
    return "\n\n".join(section.rstrip("\n") for section in sections) + "\n"


def about(facts: Row) -> str:
    """Where a run was made."""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("jax", "jaxlib", "torch", "numpy", "python"))
    device = facts["processor"] if facts["device"] == "cpu" else f"{facts['device']}; {facts['processor']}"
    return f"{device}, {facts['cores']} cores, {facts['memory_gib']} GiB. {versions}. Commit `{facts['commit']}`."


def table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A Markdown table; a figure that is missing leaves its cell empty."""
    lines = ["| " + " | ".join(head for head, _ in columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(show, row) for _, show in columns) + " |")
    return "\n".join(lines)


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, or nothing."""
    if value is None:
        return ""
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.1e}{unit}"
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return digits + unit


def _cell(show: Callable[[Row], str], row: Row) -> str:
    try:
        return show(row)
    except (KeyError, TypeError):
        return ""


def _of(key: str, unit: str = "", scale: float = 1.0) -> Callable[[Row], str]:
    return lambda row: number(row[key] * scale, unit)


def _text(key: str) -> Callable[[Row], str]:
    return lambda row: "" if row[key] is None else str(row[key])


def _spread(row: Row) -> str:
    return f"{number(row['seconds_min'])} to {number(row['seconds_max'])}"


def _race(race: Row) -> list[str]:
    columns: list[Column] = [
        ("contestant", _text("contestant")),
        ("seconds per image", _of("seconds_median")),
        ("min to max", _spread),
        ("rounds", lambda row: str(len(row["seconds"]))),
        ("images per second", _of("images_per_second")),
        ("faster than listing", _of("faster_than_listing", "x")),
        ("than best jacrev", _of("faster_than_best_jacrev", "x")),
        ("than generic", _of("faster_than_generic", "x")),
        ("of the ceiling", _of("share_of_ceiling", "%", 100)),
        ("compile, s", _of("compile_seconds")),
    ]
    exactness: list[Column] = [
        ("contestant", _text("contestant")),
        ("error of score, nats", _of("error_nats")),
        ("stated error", _of("stated_error_nats")),
        ("run to run", _of("run_to_run_nats")),
        ("listing score less score: the null directions, nats", _of("nulls_nats")),
    ]
    ran = [row for row in race["contestants"] if row["seconds"]]
    remarks = [f"{row['contestant']} did not run: {row['absent']}" for row in race["contestants"] if row["absent"]]
    remarks += [f"{row['contestant']}: {row['note']}." for row in ran if row["note"]]
    remarks += [f"Beyond its stated error: {words}." for words in disagreements(race)]
    summary = (
        f"{race['model']}, random weights, {race['image_size']} px, one image; contestants took turns. "
        f"Best jacrev: {race['best_jacrev']}. Work of an image: {race['rules_flops'] / 1e12:.3g} TFLOP by the rules, "
        f"{number(race['executed_over_naive'])} of the {race['naive_flops'] / 1e12:.3g} TFLOP of one pullback per "
        "row, which the others do. Ceilings: "
        + ", ".join(f"{p} {c['flops_per_second_median'] / 1e9:,.0f} GFLOP/s" for p, c in race["ceilings"].items())
        + ". Emulated levels have their error, and no speed of their own."
    )
    return [summary, table(columns, ran), table(exactness, ran), *remarks]


def _ceiling(results: Row) -> list[str]:
    columns: list[Column] = [
        ("product", _text("product")),
        ("shape", lambda row: " x ".join(map(str, row["shape"]))),
        ("framework", _text("framework")),
        ("precision", _text("precision")),
        ("GFLOP/s, median", _of("flops_per_second_median", scale=1e-9)),
        ("min", _of("flops_per_second_min", scale=1e-9)),
        ("max", _of("flops_per_second_max", scale=1e-9)),
    ]
    return [table(columns, results["products"])]


def _breakdown(results: Row) -> list[str]:
    columns: list[Column] = [
        ("part", _text("part")),
        ("seconds", _of("seconds_median")),
        ("min to max", _spread),
    ]
    rows = [{"part": name} | part for name, part in results["parts"].items()]
    shares = [
        f"{name}: {share:.1%} of the Jacobian's time." for name, share in results["spectrum_over_jacobian"].items()
    ]
    return [table(columns, rows), "Spectrum, " + " ".join(shares)]


_OF_LEVELS: list[Column] = [
    ("precision", _text("precision")),
    ("error, mean", lambda row: number(row["error_mean"]) if "error_mean" in row else ""),
    ("rms", _of("error_rms")),
    ("max", _of("error_max")),
    ("predicted, median", _of("predicted_median")),
    ("within predicted", _of("share_within_predicted", "%", 100)),
    ("run to run", _of("run_to_run")),
]


def _levels(results: Row) -> list[str]:
    return [
        f"{results['model']}, random weights, {results['images']} pictures, nats, against float64:",
        table(_OF_LEVELS, results["levels"]),
    ]


def _accuracy(results: Row) -> list[str]:
    trained = results["trained"]
    parts = [f"{trained['model']}, trained, {trained['images']} pictures, nats:", table(_OF_LEVELS, trained["levels"])]
    for part in results.values():
        for who in ("batches", "paper's listing"):
            if found := part.get(who):
                parts.append(
                    f"{part['model']}, {'our engine' if who == 'batches' else who}: alone or anywhere in a batch of "
                    f"{found['batch']}, the score differs by {number(found['score_difference'])} nats and the listing "
                    f"score by {number(found['listing_score_difference'])} nats at most."
                )
    return parts


def _memory(results: Row) -> list[str]:
    columns: list[Column] = [
        ("model", _text("model")),
        ("pixels", _text("image_size")),
        ("rows per pass", _text("rows_per_pass")),
        ("planned, GiB", _of("planned_bytes", scale=2**-30)),
        ("XLA, GiB", _of("xla_bytes", scale=2**-30)),
        ("measured, GiB", _of("measured_bytes", scale=2**-30)),
        ("planned / measured", _of("planned_over_measured")),
    ]
    return [table(columns, results["cases"])]


def _growth(results: Row) -> list[str]:
    columns: list[Column] = [
        ("what grows", _text("axis")),
        ("seconds, median", _text("seconds")),
        ("power", lambda row: f"{row['powers']['seconds']:.2f}"),
        ("MiB", _text("memory")),
        ("power, memory", lambda row: f"{row['powers']['bytes']:.2f}"),
    ]
    rows = [
        {
            "axis": axis,
            "seconds": ", ".join(f"{p['size']}: {number(p['seconds_median'])}" for p in points),
            "memory": ", ".join(f"{p['size']}: {number(p['bytes'] / 2**20)}" for p in points),
            "powers": results.get("exponents", {}).get(axis),
        }
        for axis, points in results["axes"].items()
    ]
    devices: list[Column] = [
        ("devices", _text("devices")),
        ("images", _text("images")),
        ("MFLOP per device, loops counted once", _of("flops_per_device", scale=1e-6)),
        ("MiB per device", _of("bytes_per_device", scale=2**-20)),
        ("collectives", lambda row: ", ".join(row["collectives"]) or "none"),
    ]
    note = "Powers are those between the two largest sizes."
    return [table(columns, rows), note, table(devices, results.get("devices", []))]


def _jobs(results: Row) -> list[str]:
    columns: list[Column] = [
        ("pictures", _text("records")),
        ("job, images per second", _of("job_images_per_second")),
        ("bare engine", _of("engine_images_per_second")),
        ("share", _of("job_share_of_engine", "%", 100)),
        ("resident peak, MB", _of("resident_peak_mb")),
    ]
    parts = [table(columns, results["pipeline"])]
    if resume := results.get("resume"):
        overhead = resume["interrupted_seconds"] + resume["resumed_seconds"] - resume["undisturbed_seconds"]
        parts.append(
            f"{resume['records']} pictures in one go: {resume['undisturbed_seconds']:.1f} s. Interrupted after "
            f"{resume['parts_before']} of {resume['parts']} parts ({resume['interrupted_seconds']:.1f} s) and resumed "
            f"({resume['resumed_seconds']:.1f} s): {overhead:+.1f} s, start-up included; {resume['parts_rewritten']} "
            f"finished parts were computed anew. With nothing left to do: {resume['finished_seconds']:.1f} s."
        )
    if compiled := results.get("compile"):
        parts.append(
            f"Compiling {compiled['model']} at {compiled['image_size']} px: {compiled['cold_seconds']:.1f} s cold, "
            f"{compiled['cached_seconds']:.1f} s from the persistent cache."
        )
    return parts


def _soundness(results: Row) -> list[str]:
    columns: list[Column] = [
        ("check", _text("name")),
        ("relative error", _of("error")),
        ("explained by rounding", _of("tolerance")),
        ("passed", lambda row: "yes" if row["passed"] else "**no**"),
    ]
    return [table(columns, results["checks"])]


_RENDERERS: dict[str, Callable[[Row], list[str]]] = {
    "race": _race,
    "ceiling": _ceiling,
    "breakdown": _breakdown,
    "accuracy": _accuracy,
    "levels": _levels,
    "memory": _memory,
    "growth": _growth,
    "jobs": _jobs,
    "soundness": _soundness,
}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_tables(json.loads((folder / "results.json").read_text()), folder)
