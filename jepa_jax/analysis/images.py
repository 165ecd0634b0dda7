"""The pictures behind a table's keys, read again for thumbnails and complexity."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from jepa_jax.analysis.table import ScoreTable
from jepa_jax.encoders.preprocessing import to_rgb
from jepa_jax.encoders.specs import PreprocessSpec
from jepa_jax.errors import ArgumentError, ImageError
from jepa_jax.jobs import open_source
from jepa_jax.jobs.sources import Source, decode


@dataclass(frozen=True)
class ImageReader:
    """Reads the images of a job by key.

    Attributes:
        source: the job's input.
        index: position of each key in it.
        recipe: the encoder's preprocessing.
    """

    source: Source
    index: Mapping[str, int]
    recipe: PreprocessSpec

    @classmethod
    def of(cls, table: ScoreTable, images: epath.PathLike | None = None) -> ImageReader | None:
        """The images behind a table; None where they are not known, or no longer where the job found them.

        Args:
            table: of the job.
            images: where the images are now; by default where the job's manifest says.

        Raises:
            ArgumentError: ``images`` is given and holds none.
        """
        place = images or table.manifest.get("source")
        if place is None:
            return None
        recipe: dict[str, Any] = table.manifest.get("encoder_spec", {}).get("preprocess", {})
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in recipe.items()}
        try:
            source = open_source(place)
        except (ArgumentError, OSError):
            if images is not None:
                raise
            return None
        return cls(source, {key: i for i, key in enumerate(source.keys)}, PreprocessSpec(**fields))

    def seen(self, key: str) -> Image.Image | None:
        """What the encoder sees of an image, before normalisation; None where it cannot be read."""
        if key not in self.index:
            return None
        try:
            values = decode(self.source.read(self.index[key]), self.recipe)
        except (ImageError, OSError):
            return None
        unit = values * np.array(self.recipe.std, np.float32) + np.array(self.recipe.mean, np.float32)
        return Image.fromarray(np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8))

    def thumbnail(self, key: str, side: int) -> Image.Image | None:
        """The whole image, at most ``side`` pixels wide and high; None where it cannot be read."""
        if key not in self.index:
            return None
        try:
            with Image.open(io.BytesIO(self.source.read(self.index[key]))) as image:
                image.draft("RGB", (2 * side, 2 * side))  # JPEG decodes at a fraction of its size, far faster
                picture = to_rgb(image)
        except (ImageError, OSError, Image.DecompressionBombError):
            return None
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture
