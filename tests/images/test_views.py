"""Views of a picture: their combination against its formula, its standard error against repetition, their drawing."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scored_sets import SPEC, VIT

from jepa_jax.encoders import Encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.images.views import RECIPES, ViewRecipe, Views, combine_views, crop_box, draw_view, draw_views


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(SPEC, initialize_params(VIT, seed=0))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    cells = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(cells).resize((120, 90), Image.Resampling.BICUBIC)


def test_views_combine_as_the_inverse_mean_of_inverse_volumes():
    scores = np.array([[1.0, 2, 4], [-700, -710, -705]])  # the second overflows unless it is done in logs
    found = combine_views(scores)
    assert found.score[0] == pytest.approx(-np.log(np.mean(np.exp(-scores[0]))), rel=1e-14)
    assert found.score[1] == pytest.approx(-707 - np.log(np.mean(np.exp(-(scores[1] + 707)))), rel=1e-14)
    weights = np.exp(-scores[0])
    assert found.effective_views[0] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    alike = combine_views(np.full((1, 5), 3.0))
    assert alike.score[0] == pytest.approx(3)
    assert alike.standard_error[0] == pytest.approx(0, abs=1e-12)
    assert alike.effective_views[0] == pytest.approx(5)
    unusable = combine_views(np.array([[1.0, np.inf, 2], [np.nan, 1, 2], [1, 2, 3]]))
    assert np.isnan(unusable.score).tolist() == [True, True, False]


def test_the_jackknife_leaves_each_view_out():
    scores = np.random.default_rng(0).normal(-300, 30, (4, 7))
    without = [combine_views(np.delete(scores, i, axis=1)).score for i in range(7)]
    expected = np.sqrt(6 / 7 * np.sum((without - np.mean(without, axis=0)) ** 2, axis=0))
    np.testing.assert_allclose(combine_views(scores).standard_error, expected, rtol=1e-9)


def test_the_standard_error_is_the_spread_over_repeated_draws():
    """4,000 draws of 24 views that spread by 0.5 nats: the mean jackknife error against the spread of the results.

    The empirical spread is known to 1 / sqrt(2 * 4000) = 1.1%; the jackknife's bias is of order 1 / V, a few per cent.
    """
    found = combine_views(np.random.default_rng(0).normal(-300, 0.5, (4000, 24)))
    assert np.sqrt(np.mean(found.standard_error**2)) == pytest.approx(np.std(found.score), rel=0.06)
    # The limit: -log E exp(-s) of a normal is mean - spread^2 / 2; the finite-V bias is spread^2 / 2V at most.
    assert np.mean(found.score) == pytest.approx(-300 - 0.125, abs=0.015)


def test_a_view_depends_on_key_seed_and_number_alone(picture: Image.Image):
    def draw(key: str, count: int, seed: int) -> np.ndarray:
        return draw_views(picture, key, Views(count, seed, RECIPES["dinov2"]), SPEC.preprocess)

    views = draw("a", 4, 0)
    assert views.shape == (4, 28, 28, 3)
    np.testing.assert_array_equal(draw("a", 2, 0), views[:2])
    for other in (draw("b", 4, 0), draw("a", 4, 1)):
        assert not np.any(np.all(other == views, axis=(1, 2, 3)))


def test_the_whole_picture_unchanged_is_the_plain_preprocessing(encoder: Encoder, picture: Image.Image):
    square = picture.resize((28, 28))
    views = draw_views(square, "a", Views(2, 0, ViewRecipe((1.0, 1.0))), SPEC.preprocess)
    spec = dataclasses.replace(encoder.spec, preprocess=dataclasses.replace(SPEC.preprocess, resize_shortest=28))
    plain = Encoder(spec, encoder.params).preprocess([square])
    # A crop of the whole area fits a square only where its aspect is 1, so the fallback takes the picture whole.
    np.testing.assert_array_equal(views, np.repeat(plain, 2, axis=0))


@pytest.mark.parametrize("size", [(200, 100), (50, 400), (64, 64)])
def test_crops_lie_inside_and_have_the_promised_area(size: tuple[int, int]):
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box(size, rng, (0.1, 0.5)) for _ in range(500)])
    assert boxes.min() >= 0
    assert np.all(boxes[:, 2] <= size[0])
    assert np.all(boxes[:, 3] <= size[1])
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share = wide * high / (size[0] * size[1])
    assert share.min() >= 0.1 - 1e-9
    assert share.max() <= 0.5 + 1e-9
    assert np.all(np.abs(np.log(wide / high)) <= np.log(4 / 3) + 1e-9)


def test_colours_change_as_the_recipe_says(picture: Image.Image):
    still = ViewRecipe((1.0, 1.0))
    rng = np.random.default_rng
    square = picture.resize((32, 32))
    base = np.asarray(draw_view(square, rng(0), still, 32), np.float64)
    grey = np.asarray(draw_view(square, rng(0), dataclasses.replace(still, grey=1.0), 32))
    assert np.all(grey == grey[..., :1])
    mirrored = np.asarray(draw_view(square, rng(0), dataclasses.replace(still, flip=1.0), 32))
    np.testing.assert_array_equal(mirrored, base[:, ::-1])
    bright = dataclasses.replace(still, jitter=1.0, brightness=0.4)
    ratios = [np.asarray(draw_view(square, rng(i), bright, 32), np.float64).mean() / base.mean() for i in range(60)]
    assert 0.58 < min(ratios) < 0.75
    assert 1.2 < max(ratios) < 1.41
    turned = draw_view(square, rng(0), dataclasses.replace(still, jitter=1.0, hue=0.5), 32).convert("HSV")
    before, after = (np.asarray(image)[..., 2].astype(int) for image in (square.convert("HSV"), turned))
    assert np.abs(before - after).max() <= 2  # hue leaves the value of a pixel alone, up to rounding
