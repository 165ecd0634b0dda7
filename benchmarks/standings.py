"""What a race says: who is faster than whom, how near the ceiling, and how far from float64."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def standings(race: dict[str, Any]) -> dict[str, Any]:
    """A race's results with relative speeds, shares of the ceiling and errors added to every row.

    Errors are against float64: PyTorch's where it took part, else ours. A score's stated error is what the package
    predicts for it (``score_error``); for PyTorch in float32, whose errors are seen to be no larger than ours, what is
    predicted for our rules in float32, and for its faster levels nothing. PyTorch resizes position embeddings in
    float32 even in a float64 model, which moves every logarithm by a rounding unit of float32 at most: that is the
    stated error of float64.
    """
    rows = [dict(row) for row in race["contestants"]]
    reference = _reference(rows)
    best = best_jacrev(rows)
    rivals = {
        "faster_than_listing": find(rows, "paper's listing"),
        "faster_than_best_jacrev": best,
        "faster_than_generic": find(rows, "jepa_jax generic"),
    }
    for row in rows:
        if not row["seconds"]:
            continue
        for name, rival in rivals.items():
            row[name] = rival["seconds_median"] / row["seconds_median"] if rival else None
        row["seconds_min"], row["seconds_max"] = min(row["seconds"]), max(row["seconds"])
        row["flops"] = race["rules_flops" if row["way"] == "rules" else "naive_flops"]
        ceiling = None if row["emulated"] else race["ceilings"].get(row["precision"])
        row["share_of_ceiling"] = (
            row["flops"] / row["seconds_median"] / ceiling["flops_per_second_median"] if ceiling else None
        )
        scores = [reading["score"] for reading in row["readings"]]
        row["run_to_run_nats"] = max(scores) - min(scores) if len(scores) > 1 else None
        listing = row["readings"][0]["listing_score"]
        row["nulls_nats"] = None if listing is None else listing - scores[0]
        row["error_nats"] = scores[0] - reference["readings"][0]["score"] if reference else None
        row["stated_error_nats"] = _stated_error(row, rows, race["outputs"])
    executed = race["rules_flops"] / race["naive_flops"]
    return race | {"contestants": rows, "best_jacrev": best and best["contestant"], "executed_over_naive": executed}


def find(rows: list[Row], name: str) -> Row | None:
    """The contestant of a name, if it ran."""
    return next((row for row in rows if row["contestant"] == name and row["seconds"]), None)


def best_jacrev(rows: list[Row]) -> Row | None:
    """The fastest `torch.func.jacrev` below float64, of any chunk size, compiled or not."""
    ran = [row for row in rows if "jacrev" in row["way"] and row["precision"] != "float64" and row["seconds"]]
    return min(ran, key=lambda row: row["seconds_median"], default=None)


def disagreements(race: dict[str, Any]) -> list[str]:
    """Everybody whose score is further from float64 than its stated error, in words."""
    return [
        f"{row['contestant']}: {row['error_nats']:+.1e} nats, stated {row['stated_error_nats']:.1e}"
        for row in race["contestants"]
        if row.get("error_nats") is not None
        and row["stated_error_nats"] is not None
        and not abs(row["error_nats"]) <= row["stated_error_nats"]
    ]


def _reference(rows: list[Row]) -> Row | None:
    exact = [row for row in rows if row["precision"] == "float64" and row["seconds"]]
    return next((row for row in exact if "jacrev" in row["way"]), exact[0] if exact else None)


def _stated_error(row: Row, rows: list[Row], outputs: int) -> float | None:
    if row["precision"] == "float64":
        return outputs * 2.0**-24
    if row["readings"][0]["score_error"] is not None:
        return row["readings"][0]["score_error"]
    if row["precision"] != "float32":
        return None
    ours = (row for row in rows if (row["way"], row["precision"]) == ("rules", "float32") and row["seconds"])
    return next((row["readings"][0]["score_error"] for row in ours), None)
