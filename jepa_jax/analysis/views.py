"""Several views of images in memory; `jepa-jax score --views` does the same to whole sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.images.views import ViewRecipe, Views, ViewsResult, combine_views, draw_views, view_recipe
from jepa_jax.numerics.precision import AskedPrecision
from jepa_jax.scoring.scorer import Scorer


def score_views(
    encoder: Encoder,
    images: Sequence[Image.Image | np.ndarray],
    views: int,
    *,
    seed: int = 0,
    keys: Sequence[str] | None = None,
    recipe: ViewRecipe | None = None,
    precision: AskedPrecision = "auto",
) -> ViewsResult:
    """Score several views of each image and combine them.

    Args:
        encoder: scores the views.
        images: pictures, as for `Encoder.preprocess`.
        views: V, at least 2.
        seed: of the views; one key and one seed give the same views in every batch and process.
        keys: of the images; by default their positions.
        recipe: by default that of the encoder's family, see `jepa_jax.images.views.RECIPES`.
        precision: of the scores.

    Raises:
        ArgumentError: fewer than two views, or not a key per image.
        ImageError: an image cannot be used.
    """
    wanted = Views(views, seed, recipe or view_recipe(encoder.spec.family))
    names = [str(i) for i in range(len(images))] if keys is None else list(keys)
    if len(names) != len(images):
        raise ArgumentError(f"keys has {len(names)} entries for {len(images)} images.")
    scorer = Scorer(encoder, precision=precision)
    # One image's views at a time: one program, and memory for V inputs however many images there are.
    scores = [
        np.asarray(scorer(draw_views(image, key, wanted, encoder.spec.preprocess)).score)
        for image, key in zip(images, names, strict=True)
    ]
    return combine_views(np.reshape(scores, (len(images), views)))
