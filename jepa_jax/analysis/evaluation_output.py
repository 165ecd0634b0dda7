"""An evaluation as JSON, Parquet and Markdown."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pyarrow as pa

from jepa_jax._version import __version__
from jepa_jax.analysis.evaluation import SIGN, DetectorResult, Evaluation
from jepa_jax.analysis.metrics import LEVEL, METRICS, Interval
from jepa_jax.markdown import markdown_lines
from jepa_jax.parquet import parquet_bytes
from jepa_jax.paths import AnyPath, PathLike, make_output, to_path, write_whole

MARKDOWN = "evaluation.md"
COLUMNS = ("statistic", "in / out", "AUROC", "gain", "AUPR in", "AUPR out", "FPR at 95% TPR", "AUROC, same images")


def write(evaluation: Evaluation, directory: PathLike, context: dict[str, Any]) -> AnyPath:
    """Write ``evaluation.json``, ``evaluation.parquet`` and ``evaluation.md``; returns the directory.

    Args:
        evaluation: to write.
        directory: made if it is not there.
        context: what else the JSON should record, such as paths and options.
    """
    folder = to_path(directory)
    make_output(folder)
    write_whole(folder / MARKDOWN, to_markdown(evaluation).encode())
    document = json.dumps(to_dict(evaluation) | {"context": context}, indent=2) + "\n"
    write_whole(folder / "evaluation.json", document.encode())
    write_whole(folder / "evaluation.parquet", parquet_bytes(to_table(evaluation)))
    return folder


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Plain data for JSON."""
    rows = [dataclasses.asdict(row) | {"inverted": row.result.inverted} for row in evaluation.rows]
    return {
        "jepa_jax": __version__,
        "sign": SIGN,
        "interval": f"{LEVEL:.0%} percentile bootstrap",
        **dataclasses.asdict(evaluation),
        "rows": rows,
    }


def to_table(evaluation: Evaluation) -> pa.Table:
    """One flat row per statistic and out-set."""
    rows = []
    for row in evaluation.rows:
        flat: dict[str, Any] = {
            "in": evaluation.in_set,
            "out": row.out,
            "encoder": evaluation.encoder,
            "statistic": row.statistic,
            "fitted": row.fitted,
            "inverted": row.result.inverted,
            "count_in": row.result.count_in,
            "count_out": row.result.count_out,
        }
        for metric in METRICS:
            interval: Interval = getattr(row.result, metric)
            flat |= {metric: interval.value, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        gain = row.result.gain
        flat |= {"gain": gain and gain.value, "gain_low": gain and gain.low, "gain_high": gain and gain.high}
        alarms = row.alarms
        flat |= {
            "alarm_rate": alarms and alarms.rate,
            "alarms_in": alarms and alarms.share_in,
            "alarms_out": alarms and alarms.share_out,
        }
        flat["auroc_on_split"] = (row.on_split or row.result).auroc.value
        rows.append(flat)
    return pa.Table.from_pylist(rows)


def to_markdown(evaluation: Evaluation) -> str:
    """The tables for people."""
    lines = [
        f"# {evaluation.in_set} against {', '.join(dict.fromkeys(row.out for row in evaluation.rows))}",
        "",
        f"Encoder: {evaluation.encoder}. Sign: {SIGN}. Brackets: {LEVEL:.0%} bootstrap intervals. "
        f"Fitted detectors (*) saw the reference alone: {evaluation.reference}. "
        "Gain is AUROC minus that of the score on the same images. The last column is AUROC over the images that no "
        "detector was fitted on, the same for every row.",
    ]
    for out in dict.fromkeys(row.out for row in evaluation.rows):
        rows = [row for row in evaluation.rows if row.out == out]
        lines += [
            "",
            f"## Out: {out}",
            "",
            *markdown_lines(COLUMNS, map(_cells, rows)),
        ]
        inverted = [row.statistic for row in rows if row.result.inverted]
        if inverted:
            lines += ["", f"**Inverted** (the out-set looks more typical): {', '.join(inverted)}."]
        lines += [line for row in rows if row.alarms for line in ("", f"{alarm_text(row)}.")]
        if out in evaluation.controls:
            c = evaluation.controls[out]
            lines += [
                "",
                f"Complexity (JPEG bits per pixel): Spearman with the score {c.spearman_in:+.3f} in, "
                f"{c.spearman_out:+.3f} out; AUROC of complexity alone {c.auroc_complexity:.3f} (simpler = more "
                f"typical), of the score with complexity regressed out {c.auroc_residual:.3f}; {c.covered_out:.0%} of "
                "the out-set lie within the reference's range of complexity (outside it the line is extrapolated).",
            ]
    if evaluation.notes:
        lines += ["", "Notes:", "", *(f"- {note}" for note in evaluation.notes)]
    return "\n".join(lines) + "\n"


def alarm_text(row: DetectorResult) -> str:
    """What share of either set a statistic with p-values calls unusual."""
    assert row.alarms is not None
    return (
        f"{row.statistic}: p <= {row.alarms.rate:g} for {row.alarms.share_in:.1%} of the in-set (false alarms; "
        f"{row.alarms.rate:.0%} are promised) and {row.alarms.share_out:.1%} of {row.out}"
    )


def _cells(row: DetectorResult) -> list[str]:
    result = row.result
    name = row.statistic + "*" * row.fitted + " (inverted)" * result.inverted
    cells = [name, f"{result.count_in:,} / {result.count_out:,}"]
    cells += [f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in (getattr(result, metric) for metric in METRICS)]
    gain = result.gain
    cells.insert(3, "" if gain is None else f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    return [*cells, f"{(row.on_split or result).auroc.value:.3f}"]
