"""The sets of the trial, and their spectra by an encoder, kept in files so that a stopped trial goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from jepa_jax.encoders import Encoder
from jepa_jax.images.preprocessing import to_rgb
from jepa_jax.scored.reading import read_table
from jepa_jax.scored.table import ScoreTable
from jepa_jax.scoring.batches import score_steps

COUNT = 300
"""Images of each set."""

CIFAR10 = "cifar10"
SETS = (CIFAR10, "mnist", "fashion_mnist", "textures", "photos")
DAMAGED = ("noise", "blur", "low_contrast", "negatives")


def pictures(data: Path, name: str) -> Iterator[np.ndarray]:
    """`COUNT` pictures of a set, uint8 [H, W] or [H, W, 3], the same every time."""
    if name == "photos":
        for path in sorted((data / "photos").glob("*.jpg"))[:COUNT]:
            with Image.open(path) as picture:
                yield np.asarray(to_rgb(picture))
        return
    if name in (CIFAR10, *DAMAGED):
        with np.load(data / "cifar10_subset.npz") as arrays:
            drawn = np.random.default_rng(0).permutation(len(arrays["x_test"]))
            chosen = drawn[:COUNT] if name == CIFAR10 else drawn[COUNT : 2 * COUNT]
            images = arrays["x_test"][chosen]
        rng = np.random.default_rng(1)
        for image in images:
            yield image if name == CIFAR10 else damaged(image, name, rng)
        return
    with np.load(data / "ood_sets.npz") as arrays:
        yield from arrays[name][np.random.default_rng(0).permutation(len(arrays[name]))[:COUNT]]


def damaged(image: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """One of `DAMAGED`: uint8 [H, W, 3] to the same."""
    if how == "blur":
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)))
    values = image.astype(np.float64)
    if how == "noise":
        values = values + rng.normal(0, 25, image.shape)
    elif how == "low_contrast":
        values = values.mean() + (values - values.mean()) / 3
    else:
        values = 255 - values
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def scored(encoder: Encoder, label: str, data: Path, name: str, folder: Path) -> ScoreTable:
    """The table of a set, from a file of ``folder`` or scored now and kept there."""
    path = folder / f"{label}-{name}.npz"
    if not path.exists():
        result = score_steps(encoder, (encoder.preprocess([image])[0] for image in pictures(data, name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, singular_values=np.asarray(result.singular_values))
        part.rename(path)
    return read_table(path, name=name)
