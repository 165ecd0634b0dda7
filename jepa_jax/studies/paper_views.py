"""How much does the score depend on the view? The paper scores one; its density is an average over transformations."""

from __future__ import annotations

from typing import Any

import numpy as np

from jepa_jax.analysis.metrics import spearman
from jepa_jax.analysis.views import score_views
from jepa_jax.encoders import Encoder
from jepa_jax.images.views import ViewRecipe, combine_views, view_recipe
from jepa_jax.markdown import markdown_lines
from jepa_jax.studies.paper_sets import ImageSet, score_set


def sensitivity(
    encoder: Encoder, images: ImageSet, views: int, *, seed: int = 0, recipe: ViewRecipe | None = None
) -> tuple[dict[str, Any], list[str]]:
    """One score per image against several views of it, as data and as a page.

    Args:
        encoder: scores the views.
        images: the set.
        views: per image.
        seed: of the views.
        recipe: by default that of the encoder's family.
    """
    recipe = recipe or view_recipe(encoder.spec.family)
    plain = score_set(encoder, images).scores["score"]
    result = score_views(encoder, images.images, views, seed=seed, keys=images.keys, recipe=recipe)
    within = float(np.mean(np.std(result.view_scores, axis=1, ddof=1)))
    counts = [count for count in (2, 4, 8, 16, 32, 64) if count <= views]
    rows = []
    for count in counts:
        some = combine_views(result.view_scores[:, :count])
        rows.append(
            {
                "views": count,
                "spearman_with_plain": spearman(plain, some.score),
                "spearman_with_all_views": spearman(result.score, some.score),
                "standard_error": float(np.mean(some.standard_error)),
                "effective_views": float(np.mean(some.effective_views)),
                "mean_minus_plain": float(np.mean(some.score - plain)),
            }
        )
    data = {
        "encoder": encoder.spec.name,
        "images": len(images),
        "recipe": vars(recipe) | {"scale": list(recipe.scale)},
        "spread_between_images": float(np.std(plain, ddof=1)),
        "spread_between_views": within,
        "one_view_with_plain": spearman(plain, result.view_scores[:, 0]),
        "two_single_views": spearman(result.view_scores[:, 0], result.view_scores[:, 1]),
        "rows": rows,
    }
    lines = [
        f"# Several views of {len(images):,} images by {encoder.spec.name}",
        "",
        f"Scores of one image spread by {within:.1f} nats over views, those of different images by "
        f"{data['spread_between_images']:.1f}. Spearman of the plain score with one random view "
        f"{data['one_view_with_plain']:.3f}, of two random views with each other {data['two_single_views']:.3f}.",
        "",
        *markdown_lines(
            (
                "views",
                "Spearman with plain",
                "with all views",
                "standard error, nats",
                "effective views",
                "shift, nats",
            ),
            [
                (
                    row["views"],
                    f"{row['spearman_with_plain']:.3f}",
                    f"{row['spearman_with_all_views']:.3f}",
                    f"{row['standard_error']:.2f}",
                    f"{row['effective_views']:.1f}",
                    f"{row['mean_minus_plain']:+.1f}",
                )
                for row in rows
            ],
        ),
    ]
    return data, lines
