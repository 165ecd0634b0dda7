"""The paper's histograms of other sets, with what it lacks: numbers, baselines fitted elsewhere, and complexity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_jax.analysis.evaluation import Options, evaluate
from jepa_jax.analysis.evaluation_output import to_dict, to_markdown
from jepa_jax.encoders import Encoder
from jepa_jax.scored.table import ScoreTable
from jepa_jax.studies.paper_sets import ImageSet, score_set

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def in_and_out(
    encoder: Encoder, sets: Sequence[ImageSet], options: Options
) -> tuple[list[ScoreTable], dict[str, Any], list[str]]:
    """Score every set, and judge the first against the others.

    Args:
        encoder: scores them.
        sets: the in-set, then the out-sets.
        options: of the evaluation.

    Returns:
        The tables, the evaluation as data, and as a page.
    """
    tables = [score_set(encoder, images) for images in sets]
    readers = {images.name: images.reader(encoder) for images in sets}
    result = evaluate(tables[0], tables[1:], options=options, readers=readers)
    quantiles = {
        table.name: dict(zip(map(str, QUANTILES), np.quantile(table.scores["score"], QUANTILES).tolist(), strict=True))
        for table in tables
    }
    return tables, to_dict(result) | {"score_quantiles": quantiles}, to_markdown(result).splitlines()
