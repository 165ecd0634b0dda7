"""What this project promises of its speed, memory and exactness, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.standings import disagreements, find

LISTING = {"dinov2-small": 2.5}
"""Times faster than the paper's listing on a CPU, by model."""

MILLISECONDS: dict[str, dict[str, float]] = {
    "dinov2-small": {"float16": 20, "bfloat16_3x": 60, "float32": 105},
    "dinov2-base": {"float16": 90},
}
"""An image on an H100, by model and level."""


@dataclass(frozen=True)
class Bar:
    """One promise.

    Attributes:
        promise: in words.
        measured: the figure.
        wanted: what it has to be, in words.
        met: whether it is.
    """

    promise: str
    measured: float
    wanted: str
    met: bool


def bars(results: dict[str, Any]) -> list[Bar]:
    """Every promise that some stage of a run has measured."""
    return list(_bars(results["suite"], {n: s["results"] for n, s in results["stages"].items() if s["results"]}))


def at_least(promise: str, measured: float | None, wanted: float) -> Iterator[Bar]:
    """A promise, if it was measured."""
    if measured is not None:
        yield Bar(promise, measured, f"at least {wanted:g}", measured >= wanted)


def at_most(promise: str, measured: float | None, wanted: float) -> Iterator[Bar]:
    """A promise, if it was measured."""
    if measured is not None:
        yield Bar(promise, measured, f"at most {wanted:g}", measured <= wanted)


def _bars(suite: str, stages: dict[str, dict[str, Any]]) -> Iterator[Bar]:
    for name, results in stages.items():
        if name.startswith("race"):
            yield from _of_race(suite, results)
        elif name.startswith("breakdown"):
            where = f"{results['model']} at {results['image_size']} px"
            share = results.get("spectrum_over_jacobian", {}).get("score only")
            yield from at_most(f"{where}: the score's spectrum, of the Jacobian's time", share, 0.1)
        elif name == "accuracy":
            for kind, part in results.items():
                difference = part.get("batches", {}).get("score_difference")
                yield from at_most(f"{part['model']} ({kind} weights): a score in any batch, nats", difference, 1e-4)
        elif name.startswith("levels"):
            for row in results["levels"]:
                who = f"{results['model']} ({row['precision']}): of {results['images']} scores"
                yield from at_least(f"{who}, within their stated error", row["share_within_predicted"], 0.95)
        elif name == "memory":
            for row in (case for case in results["cases"] if case["model"] != "toy"):
                where = f"{row['model']} at {row['image_size']} px"
                yield from at_most(f"{where}: peak memory, GiB", row["xla_bytes"] / 2**30, 8)
                if row.get("planned_over_measured"):
                    yield from at_most(
                        f"{where}: planned memory is off by", abs(row["planned_over_measured"] - 1), 0.2
                    )
        elif name == "growth":
            yield from _of_devices(results.get("devices", []))
        elif name == "jobs":
            for row in results["pipeline"][-1:]:
                yield from at_least("a job's rate, of the bare engine's", row["job_share_of_engine"], 0.9)
            rewritten = results.get("resume", {}).get("parts_rewritten")
            yield from at_most("finished parts that a resumed job computes anew", rewritten, 0)


def _of_race(suite: str, race: dict[str, Any]) -> Iterator[Bar]:
    where = f"{race['model']} at {race['image_size']} px"
    rows = race["contestants"]
    for row in rows:
        if row["way"] != "rules" or not row["seconds"] or row["emulated"] or row["precision"] == "float64":
            continue
        who = f"{where}: {row['contestant'].removeprefix('jepa_jax ')}"
        if suite == "gpu":
            yield from _on_a_gpu(who, race["model"], row)
        elif listing := LISTING.get(race["model"]):
            yield from at_least(f"{who}, faster than the listing", row["faster_than_listing"], listing)
            yield from at_least(f"{who}, faster than the best jacrev", row["faster_than_best_jacrev"], 1.3)
            yield from at_least(f"{who}, faster than generic", row["faster_than_generic"], 1.2)
    if find(rows, "jepa_jax rules"):
        yield from at_most(f"{where}: work of the rules, of the naive work", race["executed_over_naive"], 0.75)
    if any(row.get("error_nats") is not None for row in rows):
        yield from at_most(f"{where}: scores beyond their stated error", len(disagreements(race)), 0)


def _on_a_gpu(who: str, model: str, row: dict[str, Any]) -> Iterator[Bar]:
    most = MILLISECONDS.get(model, {}).get(row["precision"])
    if most is None or row["images"] == 1 or row["values"]:
        return
    yield from at_most(f"{who}, milliseconds an image", 1e3 * row["seconds_median"], most)
    if (model, row["precision"]) == ("dinov2-small", "float16"):
        yield from at_least(f"{who}, faster than the listing", row["faster_than_listing"], 130)
        yield from at_least(f"{who}, faster than the best jacrev", row["faster_than_best_jacrev"], 7)


def _of_devices(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    if rows:
        work = [row["flops_per_device"] for row in rows]
        collectives = sum(len(row["collectives"]) for row in rows)
        yield from at_most("a device's work with an image each, most over least", max(work) / min(work), 1.01)
        yield from at_most("collectives between devices that share images", collectives, 0)
