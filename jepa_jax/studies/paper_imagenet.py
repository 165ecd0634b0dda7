"""The paper's figure of one class: its least and most likely images, a row per model, random ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jepa_jax.analysis.agreement import agreements
from jepa_jax.encoders import Encoder
from jepa_jax.markdown import markdown_lines
from jepa_jax.scored.table import ScoreTable
from jepa_jax.studies.paper_sets import ImageSet, score_set


def class_extremes(encoders: Sequence[Encoder], images: ImageSet) -> list[ScoreTable]:
    """Score one class by every encoder; a table per encoder, named after it."""
    return [replace(score_set(encoder, images), name=encoder.spec.name) for encoder in encoders]


def summarize(tables: Sequence[ScoreTable], count: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Extremes of every model and agreement of every pair, as data and as a page.

    Args:
        tables: of the same images by different models.
        count: images at either end; the paper shows 5 of about 1,000.
        seed: of the random images.
    """
    random = np.random.default_rng(seed).choice(len(tables[0]), min(count, len(tables[0])), replace=False)
    models = {}
    for table in tables:
        scores = table.scores["score"]
        order = np.argsort(scores, kind="stable")
        models[table.name] = {
            name: [{"key": str(table.keys[row]), "score": float(scores[row])} for row in rows]
            for name, rows in (("least", order[:count]), ("most", order[::-1][:count]), ("random", random))
        }
    pairs = [
        {
            "models": [pair.first, pair.second],
            "spearman": pair.spearman,
            "rare_overlap": pair.rare_overlap,
            "typical_overlap": pair.typical_overlap,
        }
        for pair in agreements(tables)
    ]
    lines = [
        f"# Extremes of {len(tables[0]):,} images",
        "",
        *markdown_lines(
            ("model", "least likely", "most likely"),
            [(name, *(_cell(found[end]) for end in ("least", "most"))) for name, found in models.items()],
        ),
    ]
    if pairs:
        rows = [
            (", ".join(p["models"]), f"{p['spearman']:.3f}", f"{p['rare_overlap']:.0%}", f"{p['typical_overlap']:.0%}")
            for p in pairs
        ]
        lines += ["", "Agreement (overlap of the extreme 5%; chance is 5%):", ""]
        lines += markdown_lines(("models", "Spearman", "rarest shared", "most typical shared"), rows)
    return {"images": len(tables[0]), "models": models, "agreement": pairs}, lines


def _cell(found: Sequence[dict[str, Any]]) -> str:
    return "; ".join(f"{entry['key']} ({entry['score']:.1f})" for entry in found)
