"""Image sets of the paper's experiments: read into memory, scored by any encoder, as tables."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from jepa_jax.encoders import Encoder
from jepa_jax.encoders.identity import pinned_form
from jepa_jax.errors import ArgumentError, ImageError
from jepa_jax.images.preprocessing import to_rgb
from jepa_jax.images.sources import open_source
from jepa_jax.images.sources.tfds import PREFIX, rows_of_class
from jepa_jax.jobs.output.columns import SCORES
from jepa_jax.paths import to_path
from jepa_jax.scored.image_reader import UNREADABLE, ImageReader, open_picture
from jepa_jax.scored.reading import named_path
from jepa_jax.scored.table import ScoreTable, drawn_rows
from jepa_jax.scoring.batches import score_steps


@dataclass(frozen=True)
class ImageSet:
    """Pictures with names.

    Attributes:
        name: of the set.
        origin: where it was read from.
        keys: of the pictures.
        images: RGB.
    """

    name: str
    origin: str
    keys: tuple[str, ...]
    images: tuple[Image.Image, ...]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> np.ndarray:
        """The pixels of a picture, uint8 [H, W, 3]: a set is a source of images."""
        return np.asarray(self.images[index])

    def reader(self, encoder: Encoder) -> ImageReader:
        """The pictures by key, as the analysis asks for them."""
        return ImageReader(self, {key: i for i, key in enumerate(self.keys)}, encoder.spec.preprocess)


def read_set(text: str, count: int | None = None, *, label: str | None = None, seed: int = 0) -> ImageSet:
    """Read a set, or a random part of it.

    Args:
        text: ``PATH`` or ``NAME=PATH``; the path is any input of a job, or ``FILE.npz:ARRAY`` with uint8 pictures.
        count: pictures to draw, without replacement; all by default.
        label: of a TFDS data set, its class by name or number; of a folder with a sub-folder per class, the
            sub-folder's name, or its number in the order of names (ImageNet's own order of classes; 21 is
            n01608432, the kite).
        seed: of the draw.

    Raises:
        ArgumentError: there is no such set, array or class.
    """
    name, path = named_path(text)
    if ".npz" in path:
        if label is not None:
            raise ArgumentError(f"class={label} needs a folder with a sub-folder per class, not {path}.")
        return _read_array(path, name, count, seed)
    source = open_source(path)
    indices = np.arange(len(source.keys))
    if label is not None:
        indices = np.array(_class_rows(path, source.keys, label), int)
    keys, images = [], []
    for index in indices[drawn_rows(len(indices), count, seed)]:
        try:
            images.append(open_picture(source.read(int(index)))[0])
        except UNREADABLE:
            continue  # a picture that cannot be read is no part of a study
        keys.append(source.keys[index])
    return ImageSet(name or to_path(path).name, path, tuple(keys), tuple(images))


def _class_rows(path: str, keys: Sequence[str], label: str) -> list[int]:
    if path.startswith(PREFIX):
        return rows_of_class(path, label)
    folder = _class_folder(keys, label)
    return [i for i, key in enumerate(keys) if key.startswith(f"{folder}/")]


def _class_folder(keys: Sequence[str], label: str) -> str:
    folders = sorted({key.split("/")[0] for key in keys if "/" in key})
    if label in folders:
        return label
    if label.isdigit() and int(label) < len(folders):
        return folders[int(label)]
    raise ArgumentError(f"class={label!r} is none of the {len(folders)} sub-folders, by name or by number from 0.")


def _read_array(path: str, name: str | None, count: int | None, seed: int) -> ImageSet:
    file, _, array = path.rpartition(":")
    if not file.endswith(".npz"):
        raise ArgumentError(f"set {path} must name an array: FILE.npz:ARRAY.")
    if not to_path(file).exists():
        raise ArgumentError(f"set {path}: there is no file {file}.")
    with np.load(io.BytesIO(to_path(file).read_bytes()), allow_pickle=False) as arrays:
        if array not in arrays:
            raise ArgumentError(f"{file} has no array {array!r}; it has {', '.join(arrays.files)}.")
        pixels = arrays[array]
    rows = drawn_rows(len(pixels), count, seed)
    try:
        images = tuple(to_rgb(pixels[row]) for row in rows)
    except ImageError as error:
        raise ArgumentError(f"{array!r} of {file}: {error}") from error
    return ImageSet(name or array, path, tuple(f"{array}/{row:06d}" for row in rows), images)


def score_set(encoder: Encoder, images: ImageSet, **options: Any) -> ScoreTable:
    """Score a set, spectra and embeddings included.

    Args:
        encoder: scores it.
        images: the set.
        options: for `jepa_jax.score`, such as ``precision``.
    """
    if not len(images):
        raise ArgumentError(f"set {images.name!r} has no picture that can be read.")
    options = {"precision": "float32"} | options
    result = score_steps(encoder, (encoder.preprocess([image])[0] for image in images.images), **options)
    scores = {name: getattr(result, name) for name in SCORES}
    return ScoreTable(
        name=images.name,
        origin=images.origin,
        keys=np.array(images.keys, object),
        scores={name: np.asarray(values, np.float64) for name, values in scores.items() if values is not None},
        null_directions=result.singular_values.shape[1] - result.log_volume_rank,
        singular_values=np.asarray(result.singular_values, np.float32),
        embedding=np.asarray(result.embedding, np.float32),
        manifest={
            "encoder_spec": pinned_form(encoder.spec),
            "pinned": {
                "input": images.origin,
                "encoder": encoder.spec.name,
                "encoder_digest": encoder.digest,
                "image_size": encoder.spec.image_size,
                "precision": options["precision"],
            },
        },
    )
