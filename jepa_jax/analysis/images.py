"""The pictures behind a table's keys, read again for thumbnails and complexity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from jepa_jax.analysis.table import ScoreTable, named_path
from jepa_jax.encoders.identity import from_plain
from jepa_jax.errors import ArgumentError, CheckpointError, ImageError, JobError
from jepa_jax.images.decoding import open_encoded
from jepa_jax.images.preprocessing import preprocess_one, to_rgb
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.images.sources import open_source
from jepa_jax.images.videos import VideoFile, frames_of
from jepa_jax.jobs.manifest import input_place
from jepa_jax.paths import PathLike

UNREADABLE = (ImageError, OSError, Image.DecompressionBombError)
"""What reading a picture may raise."""


SHOWN_FRAMES = 4
"""Of a clip in a thumbnail."""


class Pictures(Protocol):
    """An ordered collection of pictures, encoded or as uint8 arrays; a job's source is one."""

    def read(self, index: int) -> bytes | np.ndarray | VideoFile:
        """One picture, or video."""
        ...


@dataclass(frozen=True)
class ImageReader:
    """Reads the images of a job by key.

    Attributes:
        source: the job's input, or any other pictures.
        index: position of each key in it.
        recipe: the encoder's preprocessing.
    """

    source: Pictures
    index: Mapping[str, int]
    recipe: PreprocessSpec

    @classmethod
    def of(cls, table: ScoreTable, images: PathLike | None = None) -> ImageReader | None:
        """The images behind a table; None where they are not known, or no longer where the job found them.

        Args:
            table: of the job.
            images: where the images are now; by default where the job's manifest says.

        Raises:
            ArgumentError: ``images`` is given and holds none.
            JobError: the job's preprocessing is one that this version does not know.
        """
        place = images or input_place(table.manifest)
        if place is None:
            return None
        try:
            source = open_source(place)
        except (ArgumentError, OSError):
            if images is not None:
                raise
            return None
        try:
            preprocess = table.manifest.get("encoder_spec", {}).get("preprocess", {})
            recipe = from_plain(PreprocessSpec, preprocess, "preprocess")
        except CheckpointError as error:
            raise JobError(
                f"the manifest of {table.name!r} tells of another preprocessing than this jepa_jax knows ({error}); "
                "use the version that scored these images."
            ) from error
        return cls(source, {key: i for i, key in enumerate(source.keys)}, recipe)

    @classmethod
    def all_of(cls, tables: Sequence[ScoreTable], moved: Sequence[str]) -> dict[str, ImageReader]:
        """Readers by the tables' names, from ``NAME=PATH`` for images that lie elsewhere now.

        Raises:
            ArgumentError: a name is no table's, or the path holds no image.
        """
        by_name = {table.name: table for table in tables}
        readers = {}
        for text in moved:
            name, path = named_path(text)
            if name is None and len(tables) == 1:
                name = tables[0].name
            if name not in by_name:
                raise ArgumentError(f"images={text!r} must be NAME=PATH with a name of {', '.join(by_name)}.")
            readers[name] = cls.of(by_name[name], path)
        return {name: reader for name, reader in readers.items() if reader is not None}

    @property
    def shown(self) -> int:
        """Pictures side by side in a thumbnail: of a clip some frames."""
        return 1 if self.recipe.frames is None else min(SHOWN_FRAMES, self.recipe.frames)

    def seen(self, key: str) -> Image.Image | None:
        """What the encoder sees of an image, before normalisation; None where it cannot be read, and of a clip."""
        picture = self._picture(key)
        if picture is None:
            return None
        return denormalised(preprocess_one(picture, self.recipe), self.recipe)

    def thumbnail(self, key: str, side: int) -> Image.Image | None:
        """The whole image, at most ``side`` pixels wide and high; None where it cannot be read.

        Of a clip `shown` frames in a row, from its first to its last, the middle square of each.
        """
        if self.recipe.frames is not None:
            return self._strip(key, self.recipe.frames, side)
        picture = self._picture(key, at_least=2 * side)
        if picture is not None:
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture

    def _strip(self, key: str, frames: int, side: int) -> Image.Image | None:
        if key not in self.index:
            return None
        wanted = [round(place) * self.recipe.frame_step for place in np.linspace(0, frames - 1, self.shown)]
        strip = Image.new("RGB", (self.shown * side, side))
        try:
            content = self.source.read(self.index[key])
            if isinstance(content, np.ndarray):
                return None
            for place, frame in enumerate(frames_of(content, wanted)):
                strip.paste(ImageOps.fit(frame, (side, side), Image.Resampling.LANCZOS), (place * side, 0))
        except UNREADABLE:
            return None
        return strip

    def _picture(self, key: str, at_least: int | None = None) -> Image.Image | None:
        """The image in RGB, or None where it cannot be read."""
        if key not in self.index:
            return None
        try:
            content = self.source.read(self.index[key])
            return None if isinstance(content, VideoFile) else open_picture(content, at_least)
        except UNREADABLE:
            return None


def open_picture(content: bytes | np.ndarray, at_least: int | None = None) -> Image.Image:
    """A record's content in RGB; a JPEG at a fraction of its size where that is at least so many pixels, far faster.

    Raises:
        UNREADABLE: it is no picture.
    """
    if isinstance(content, np.ndarray):
        return to_rgb(content)
    with open_encoded(content) as image:
        if at_least is not None:
            image.draft("RGB", (at_least, at_least))
        return to_rgb(image)


def denormalised(values: np.ndarray, recipe: PreprocessSpec) -> Image.Image:
    """Encoder input [H, W, 3] back to the picture that it was."""
    unit = values * np.array(recipe.std, np.float32) + np.array(recipe.mean, np.float32)
    return Image.fromarray(np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8))
