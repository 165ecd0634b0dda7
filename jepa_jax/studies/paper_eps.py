"""Is the score sensitive to the listing's eps? The paper says no; it depends on the noise of the null directions."""

from __future__ import annotations

from typing import Any

import numpy as np

from jepa_jax.analysis.table import ScoreTable
from jepa_jax.errors import ArgumentError
from jepa_jax.studies.paper_record import markdown_table

VALUES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10)
"""Clips to try; the paper's listing has 1e-6."""

PAPER = 1e-6


def sensitivity(table: ScoreTable, out: ScoreTable | None = None) -> tuple[dict[str, Any], list[str]]:
    """Scores at every eps against those at 1e-6, with the null directions in and out.

    Args:
        table: scored images with their singular values.
        out: a second set by the same encoder, for an AUROC at every eps.

    Raises:
        ArgumentError: a table has no singular values.
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    if table.singular_values is None or (out is not None and out.singular_values is None):
        raise ArgumentError("the eps study needs singular values; score with --save singular_values.")
    rows = []
    for nulls in dict.fromkeys((0, table.null_directions)):
        base = _scores(table, nulls, PAPER)
        for eps in VALUES:
            scores = _scores(table, nulls, eps)
            entry: dict[str, Any] = {
                "null_directions_left_out": nulls,
                "eps": eps,
                "spearman": float(np.asarray(spearmanr(base, scores))[0]),
                "mean_shift": float(np.mean(scores - base)),
                "largest_shift": float(np.max(np.abs(scores - base))),
                "clipped_per_image": float(np.mean(np.sum(_kept(table, nulls) < eps, axis=1))),
            }
            if out is not None:
                other = _scores(out, nulls, eps)
                labels = np.concatenate([np.ones(len(scores)), np.zeros(len(other))])
                entry["auroc"] = float(roc_auc_score(labels, np.concatenate([scores, other])))
            rows.append(entry)
    lines = [
        f"# Sensitivity to eps: {table.name}" + (f" against {out.name}" if out else ""),
        "",
        f"{len(table):,} images. Scores are compared with those at eps = 1e-6, the paper's listing.",
        "",
        *markdown_table(
            ("nulls left out", "eps", "values clipped per image", "Spearman", "mean shift, nats", "AUROC"),
            [
                (
                    row["null_directions_left_out"],
                    f"{row['eps']:.0e}",
                    f"{row['clipped_per_image']:.2f}",
                    f"{row['spearman']:.5f}",
                    f"{row['mean_shift']:+.3f}",
                    f"{row['auroc']:.4f}" if "auroc" in row else "",
                )
                for row in rows
            ],
        ),
    ]
    return {"images": len(table), "rows": rows}, lines


def _kept(table: ScoreTable, nulls: int) -> np.ndarray:
    assert table.singular_values is not None
    return table.singular_values[:, : table.singular_values.shape[1] - nulls].astype(np.float64)


def _scores(table: ScoreTable, nulls: int, eps: float) -> np.ndarray:
    return np.log(np.maximum(_kept(table, nulls), eps)).sum(axis=1)
