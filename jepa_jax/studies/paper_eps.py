"""Is the score sensitive to the listing's eps? The paper says no; it depends on the noise of the null directions."""

from __future__ import annotations

from typing import Any

import numpy as np

from jepa_jax.analysis.metrics import auroc, spearman
from jepa_jax.errors import ArgumentError
from jepa_jax.markdown import markdown_lines
from jepa_jax.scored.spectra_file import log_volume
from jepa_jax.scored.table import ScoreTable

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
    spectra = table.singular_values
    if spectra is None or (out is not None and out.singular_values is None):
        raise ArgumentError("the eps study needs singular values; score with --save singular_values.")
    rows = []
    for nulls in dict.fromkeys((0, table.null_directions)):
        base = log_volume(spectra, nulls, PAPER)
        kept = spectra[:, : spectra.shape[1] - nulls]
        for eps in VALUES:
            scores = log_volume(spectra, nulls, eps)
            entry: dict[str, Any] = {
                "null_directions_left_out": nulls,
                "eps": eps,
                "spearman": spearman(base, scores),
                "mean_shift": float(np.mean(scores - base)),
                "largest_shift": float(np.max(np.abs(scores - base))),
                "clipped_per_image": float(np.mean(np.sum(kept < eps, axis=1))),
            }
            if out is not None and out.singular_values is not None:
                entry["auroc"] = auroc(scores, log_volume(out.singular_values, nulls, eps))
            rows.append(entry)
    lines = [
        f"# Sensitivity to eps: {table.name}" + (f" against {out.name}" if out else ""),
        "",
        f"{len(table):,} images. Scores are compared with those at eps = 1e-6, the paper's listing.",
        "",
        *markdown_lines(
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
