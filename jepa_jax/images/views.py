"""Several views of an image: the paper's density is an average over training transformations, not one picture's score.

With x = (mu, T), T a random transformation, the paper's eq. 4 reads p(mu) ~ 1 / E_T[1 / prod_k sigma_k(J(T mu))].
Over V drawn views with scores s_v = sum_k log sigma_k the estimate of log p, up to a constant, is therefore

    -logmeanexp(-s) = log V - log sum_v exp(-s_v),

not the mean of the scores: the lowest one counts most. It exceeds its limit on average (Jensen), less so with more
views; where scores spread over many nats one view decides, which `ViewsResult.effective_views` tells.

Nothing here needs JAX: the worker processes of a job draw the views.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from jepa_jax.errors import ArgumentError
from jepa_jax.images.preprocessing import preprocess, to_rgb
from jepa_jax.images.recipe import PreprocessSpec

ASPECT = 4 / 3
"""Crops are at most this much wider than high, or higher than wide, as in torchvision's RandomResizedCrop."""


@dataclass(frozen=True)
class ViewRecipe:
    """How views are drawn.

    Attributes:
        scale: smallest and largest share of the picture's area that a crop covers.
        flip: probability of a mirror image.
        jitter: probability of a change of colours.
        brightness, contrast, saturation: strongest change, as a factor from 1 - b to 1 + b.
        hue: strongest shift, in turns of the colour circle.
        grey: probability of losing all colour.
    """

    scale: tuple[float, float]
    flip: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0


RECIPES = {
    # dinov2/data/augmentations.py: global crops; its blur and solarisation are left out.
    "dinov2": ViewRecipe(
        (0.32, 1.0), 0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grey=0.2
    ),
    # ijepa configs/in1k_vith14_ep300.yaml: crops alone.
    "ijepa": ViewRecipe((0.3, 1.0)),
    # OpenCLIP's and MetaCLIP's training crop.
    "clip": ViewRecipe((0.9, 1.0)),
    "vit": ViewRecipe((0.3, 1.0), 0.5),
}
"""The training augmentation of each family of encoders; ``vit`` is a plain choice for any other."""


def view_recipe(family: str) -> ViewRecipe:
    """How views are drawn for a family of encoders where nothing else is asked for."""
    return RECIPES.get(family, RECIPES["vit"])


@dataclass(frozen=True)
class Views:
    """Which views of every image are drawn. A view depends on these, on the image's key and on its number alone.

    Attributes:
        count: V, at least 2.
        seed: of the draws.
        recipe: how they are drawn.
    """

    count: int
    seed: int
    recipe: ViewRecipe

    def __post_init__(self):
        if self.count < 2:
            raise ArgumentError(f"views={self.count} must be at least 2; one view is jepa_jax.score.")


@dataclass(frozen=True)
class ViewsResult:
    """Scores of B images over V views each.

    Attributes:
        score: [B], nats; the views combined.
        standard_error: [B], nats, over the draw of the views (jackknife).
        effective_views: [B], between 1 and V: how many views carry the combination.
        weights: [B, V], in sum 1: how much the combination moves with each view's score.
        view_scores: [B, V], nats.
    """

    score: np.ndarray
    standard_error: np.ndarray
    effective_views: np.ndarray
    weights: np.ndarray
    view_scores: np.ndarray


def combine_views(view_scores: np.ndarray) -> ViewsResult:
    """-logmeanexp(-score) over the last axis of [B, V], V at least 2, with its jackknife standard error.

    An image of which a view has no finite score has none either: NaN throughout.
    """
    scores = np.asarray(view_scores, np.float64)
    count = scores.shape[-1]
    inverse = np.where(np.all(np.isfinite(scores), axis=-1, keepdims=True), -scores, np.nan)
    with np.errstate(invalid="ignore"):  # logaddexp of NaN
        # Sums over the views before each and after each: together, over all but one, in as much time as over all.
        upward = np.logaddexp.accumulate(inverse, axis=-1)
        downward = np.logaddexp.accumulate(inverse[..., ::-1], axis=-1)[..., ::-1]
        nothing = np.full_like(scores[..., :1], -np.inf)
        before = np.concatenate([nothing, upward[..., :-1]], axis=-1)
        after = np.concatenate([downward[..., 1:], nothing], axis=-1)
        without = math.log(count - 1) - np.logaddexp(before, after)  # [B, V]: combined, each view left out in turn
    apart = without - without.mean(axis=-1, keepdims=True)
    weights = np.exp(inverse - upward[..., -1:])
    return ViewsResult(
        score=math.log(count) - upward[..., -1],
        standard_error=np.sqrt((count - 1) / count * np.sum(apart**2, axis=-1)),
        effective_views=1 / np.sum(weights**2, axis=-1),
        weights=weights,
        view_scores=scores,
    )


def draw_views(image: Image.Image | np.ndarray, key: str, views: Views, spec: PreprocessSpec) -> np.ndarray:
    """Views of one picture as an encoder's input, float32 [V, crop, crop, 3].

    Args:
        image: the picture.
        key: of it.
        views: which ones.
        spec: the encoder's recipe, of which its size and its normalisation are kept.
    """
    picture = to_rgb(image)
    drawn = [
        draw_view(picture, _source(key, views.seed, number), views.recipe, spec.crop) for number in range(views.count)
    ]
    return preprocess(drawn, dataclasses.replace(spec, resize_shortest=spec.crop))


def draw_view(picture: Image.Image, rng: np.random.Generator, recipe: ViewRecipe, side: int) -> Image.Image:
    """One view: a crop resized to a square, perhaps mirrored and recoloured."""
    view = picture.resize((side, side), Image.Resampling.BICUBIC, box=crop_box(picture.size, rng, recipe.scale))
    if rng.random() < recipe.flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < recipe.jitter:
        view = _recoloured(view, rng, recipe)
    if rng.random() < recipe.grey:
        view = view.convert("L").convert("RGB")
    return view


def crop_box(
    size: tuple[int, int], rng: np.random.Generator, scale: tuple[float, float]
) -> tuple[float, float, float, float]:
    """A box of random area and shape inside a picture; left, top, right, bottom in pixels."""
    width, height = size
    for _ in range(10):  # a shape may not fit an elongated picture: try another, as torchvision does
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(-math.log(ASPECT), math.log(ASPECT)))
        wide, high = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if wide <= width and high <= height:
            left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
            return left, top, left + wide, top + high
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _recoloured(view: Image.Image, rng: np.random.Generator, recipe: ViewRecipe) -> Image.Image:
    """Brightness, contrast, saturation and hue changed in a random order."""
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    for name in rng.permutation([*enhancers, "hue"]):
        strength = getattr(recipe, name)
        amount = rng.uniform(-strength, strength)
        if name == "hue":
            bands = list(view.convert("HSV").split())
            turn = round(256 * amount)
            bands[0] = bands[0].point([(level + turn) % 256 for level in range(256)])
            view = Image.merge("HSV", bands).convert("RGB")
        else:
            view = enhancers[name](view).enhance(1 + amount)
    return view


def _source(key: str, seed: int, view: int) -> np.random.Generator:
    """Randomness that depends on the image's key, the seed and the view's number, and on nothing else."""
    digest = hashlib.sha256(f"{seed}/{view}/{key}".encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
