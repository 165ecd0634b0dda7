"""The pool: clean images, and mess of known kinds."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jepa_jax.images.preprocessing import to_rgb

CLEAN = 2400
MESS = 600
KINDS = ("other_domain", "near_duplicate", "broken", "noise", "banner", "colour_space")
SIZE = 32
CLEAN_TRAINING = 10_800
MESS_TRAINING = 1_200


@dataclass(frozen=True)
class Pool:
    """Images with what is known of them.

    Attributes:
        images: uint8 [N, 32, 32, 3].
        labels: [N]; at random where an image shows nothing of a class.
        kinds: [N] text: ``clean`` or one of `KINDS`.
    """

    images: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray

    @property
    def mess(self) -> np.ndarray:
        """[N] mask."""
        return self.kinds != "clean"

    def with_share(self, share: float) -> np.ndarray:
        """Rows of the pool with so much mess: all that is clean, and the first of each kind."""
        each = round(share / (1 - share) * CLEAN / len(KINDS))
        rows = [np.flatnonzero(self.kinds == "clean")]
        return np.concatenate([*rows, *(np.flatnonzero(self.kinds == kind)[:each] for kind in KINDS)])


def make_pool(data: Path, clean: int = CLEAN, mess: int = MESS, seed: int = 0) -> Pool:
    """The pool; of another size, the clean images of a smaller one are among a larger one's."""
    with np.load(data / "cifar10_subset.npz") as arrays:
        order = np.random.default_rng(seed).permutation(len(arrays["x_train"]))
        images, labels = arrays["x_train"][order], arrays["y_train"][order].ravel()
    rng = np.random.default_rng((seed, mess))
    parts, part_labels, kinds = [images[:clean]], [labels[:clean]], ["clean"] * clean
    for kind in KINDS:
        count = mess // len(KINDS)
        # Mess is made of clean images of the pool (duplicates) or of others that are not in it.
        sources = rng.integers(clean, size=count) if kind == "near_duplicate" else len(images) - 1 - np.arange(count)
        made = messy(data, kind, images[sources], rng)
        parts.append(made)
        keeps = kind in ("near_duplicate", "colour_space")
        part_labels.append(labels[sources] if keeps else rng.integers(10, size=count))
        kinds += [kind] * count
    return Pool(np.concatenate(parts), np.concatenate(part_labels), np.array(kinds))


def messy(data: Path, kind: str, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """So many images of a kind of mess, made of ``images`` uint8 [N, 32, 32, 3] where it is made of any."""
    if kind == "other_domain":
        return other_domains(data, len(images), rng)
    if kind == "noise":
        return rng.integers(0, 256, images.shape, np.uint8)
    return np.stack([_MAKERS[kind](image, rng) for image in images])


def other_domains(data: Path, count: int, rng: np.random.Generator) -> np.ndarray:
    """MNIST, Fashion-MNIST, textures and photographs in turn."""
    photos = sorted((data / "photos").glob("*.jpg"))
    with np.load(data / "ood_sets.npz") as arrays:
        sets = [arrays[name] for name in ("mnist", "fashion_mnist", "textures")]
    made = []
    for i in range(count):
        which = i % 4
        if which == 3:
            with Image.open(photos[rng.integers(len(photos))]) as picture:
                found = to_rgb(picture)
        else:
            found = to_rgb(Image.fromarray(sets[which][rng.integers(len(sets[which]))]))
        made.append(np.asarray(found.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
    return np.stack(made)


def _near_duplicate(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    moved = np.roll(image, rng.integers(-2, 3, 2), axis=(0, 1))
    file = io.BytesIO()
    Image.fromarray(moved).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))


def _broken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cut = image.copy()
    cut[int(rng.integers(6, 26)) :] = 128
    return cut


def _banner(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    top = int(rng.integers(0, 21))
    draw.rectangle((0, top, SIZE, top + 10), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    text = "".join(chr(int(c)) for c in rng.integers(65, 91, 6))
    draw.text((1, top), text, fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return np.asarray(picture)


def _colour_space(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        return image[..., ::-1].copy()
    return np.asarray(Image.fromarray(image).convert("YCbCr"))


_MAKERS = {
    "near_duplicate": _near_duplicate,
    "broken": _broken,
    "banner": _banner,
    "colour_space": _colour_space,
}
