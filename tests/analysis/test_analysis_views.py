"""Several views of images, scored and combined by an encoder."""

import numpy as np
import pytest
from PIL import Image
from scored_sets import SPEC, VIT

import jepa_jax as jj
from jepa_jax.analysis.views import score_views
from jepa_jax.encoders import Encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.images.views import RECIPES, Views, draw_views


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(SPEC, initialize_params(VIT, seed=0))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    cells = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(cells).resize((120, 90), Image.Resampling.BICUBIC)


def test_scores_are_those_of_the_views(encoder: Encoder, picture: Image.Image):
    found = score_views(encoder, [picture, picture.rotate(180)], views=3, seed=7, keys=["a", "b"])
    views = draw_views(picture, "a", Views(3, 7, RECIPES["dinov2"]), SPEC.preprocess)
    # Another number of images side by side rounds differently: 14 log values, float32 Jacobians, 1e-6 each.
    np.testing.assert_allclose(found.view_scores[0], np.asarray(jj.score(encoder, views).score), atol=1e-4)
    assert found.score.shape == found.standard_error.shape == (2,)
    assert np.all(found.score >= found.view_scores.min(axis=1))
    assert np.all(found.score <= found.view_scores.mean(axis=1))  # Jensen


def test_mistakes_are_named(encoder: Encoder, picture: Image.Image):
    with pytest.raises(jj.ArgumentError, match="views=1 must be at least 2"):
        score_views(encoder, [picture], views=1)
    with pytest.raises(jj.ArgumentError, match="keys has 2 entries for 1 images"):
        score_views(encoder, [picture], views=2, keys=["a", "b"])
