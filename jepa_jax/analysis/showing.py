"""What evaluate shows on a console."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from jepa_jax.analysis.evaluation import SIGN, Evaluation
from jepa_jax.analysis.evaluation_output import alarm_text
from jepa_jax.analysis.metrics import Interval

WIDE = 120
"""Columns of a console that all figures have room in."""

LEFT_OUT = ("AUPR in", "AUPR out", "FPR95")
"""Figures that a narrower console is spared."""


def print_evaluation(console: Console, evaluation: Evaluation) -> None:
    """A table per out-set, the complexity control, and the notes."""
    wide = console.width >= WIDE
    console.print(f"Sign: {SIGN}.", soft_wrap=True)
    for out in dict.fromkeys(row.out for row in evaluation.rows):
        rows = [row for row in evaluation.rows if row.out == out]
        table = Table(title=f"{evaluation.in_set} (in) against {out} (out)", title_justify="left")
        table.add_column("statistic", no_wrap=True, min_width=max(len(row.statistic) + row.fitted for row in rows))
        for name in ("AUROC [95%]", "gain"):
            table.add_column(name, justify="right", no_wrap=True)
        for name in (*(LEFT_OUT if wide else ()), "AUROC, same images", "in / out"):
            table.add_column(name, justify="right")
        for row in rows:
            result = row.result
            table.add_row(
                row.statistic + ("*" if row.fitted else ""),
                _with_interval(result.auroc) + (" [red]inverted[/]" if result.inverted else ""),
                "" if result.gain is None else _with_interval(result.gain, "+"),
                *(f"{i.value:.3f}" for i in (result.aupr_in, result.aupr_out, result.fpr95) if wide),
                f"{(row.on_split or result).auroc.value:.3f}",
                f"{result.count_in:,} / {result.count_out:,}",
            )
        console.print(table)
        for row in rows:
            if row.alarms:
                console.print(f"{alarm_text(row)}.", markup=False, soft_wrap=True)
        if out in evaluation.controls:
            control = evaluation.controls[out]
            console.print(
                f"Complexity: Spearman with the score {control.spearman_in:+.2f} in, {control.spearman_out:+.2f} out; "
                f"AUROC alone {control.auroc_complexity:.3f}, score without it {control.auroc_residual:.3f} "
                f"({control.covered_out:.0%} of the out-set within the reference's range of complexity).",
                soft_wrap=True,
            )
    if not wide:
        console.print(f"{', '.join(LEFT_OUT)} are shown from {WIDE} columns on; --output writes them.", soft_wrap=True)
    console.print(f"* fitted on {evaluation.reference}", markup=False, soft_wrap=True)
    for note in evaluation.notes:
        console.print(f"- {note}", markup=False, soft_wrap=True)


def _with_interval(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.3f} \\[{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
