"""The pictures behind a table's keys, read again for thumbnails and complexity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from jepa_jax.encoders.identity import from_plain
from jepa_jax.errors import ArgumentError, CheckpointError, ImageError, JobError
from jepa_jax.images.decoding import open_encoded
from jepa_jax.images.preprocessing import preprocess_one, to_rgb
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.images.sources import Records, open_source
from jepa_jax.images.videos import VideoFile, frames_of
from jepa_jax.jobs.output.manifest import input_place
from jepa_jax.paths import PathLike
from jepa_jax.scored.reading import named_path
from jepa_jax.scored.table import ScoreTable

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
        return cls.behind(table.manifest, place=images, name=table.name)

    @classmethod
    def behind(
        cls,
        manifest: Mapping[str, Any],
        source: Records | None = None,
        place: PathLike | None = None,
        name: str = "it",
    ) -> ImageReader | None:
        """The images that a job scored; None where they are not known, or no longer where it found them.

        Args:
            manifest: of the job.
            source: its input, where that is open.
            place: where the input is now; by default where the manifest says.
            name: of the set, for messages.

        Raises:
            ArgumentError: ``place`` is given and holds none.
            JobError: the job's preprocessing is one that this version does not know.
        """
        where = place or input_place(dict(manifest))
        try:
            if source is None and where is not None:
                source = open_source(where)
        except (ArgumentError, OSError):
            if place is not None:
                raise
        if source is None:
            return None
        try:
            preprocess = manifest.get("encoder_spec", {}).get("preprocess", {})
            recipe = from_plain(PreprocessSpec, preprocess, "preprocess")
        except CheckpointError as error:
            raise JobError(
                f"the manifest of {name!r} tells of another preprocessing than this jepa_jax knows ({error}); "
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
        picture = self.whole(key)
        if picture is None:
            return None
        return denormalised(preprocess_one(picture, self.recipe), self.recipe)

    def whole(self, key: str) -> Image.Image | None:
        """The whole image in RGB, at its own size; None where it cannot be read."""
        opened = self.sized(key)
        return None if opened is None else opened[0]

    def path(self, key: str) -> str | None:
        """The file that holds this image alone; None where there is none."""
        if key not in self.index or not isinstance(self.source, Records):
            return None
        return self.source.path(self.index[key])

    def thumbnail(self, key: str, side: int) -> Image.Image | None:
        """The whole image, at most ``side`` pixels wide and high; None where it cannot be read.

        Of a clip `shown` frames in a row, from its first to its last, the middle square of each, ``side`` pixels wide.
        """
        if self.recipe.frames is not None:
            return self._strip(key, self.recipe.frames, side)
        opened = self.sized(key, at_least=2 * side)
        if opened is None:
            return None
        opened[0].thumbnail((side, side), Image.Resampling.LANCZOS)
        return opened[0]

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

    def sized(self, key: str, at_least: int | None = None) -> tuple[Image.Image, tuple[int, int]] | None:
        """The image in RGB, and width and height that it has where it lies; None where it cannot be read.

        Args:
            key: of the image.
            at_least: pixels that are enough: a JPEG is read at a fraction of its size, far faster. None for all.
        """
        if key not in self.index:
            return None
        try:
            return open_picture(self.source.read(self.index[key]), at_least)
        except UNREADABLE:
            return None


def open_picture(
    content: bytes | np.ndarray | VideoFile, at_least: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """A record's content in RGB, and its own size; a JPEG at a fraction of it where that is at least so many pixels.

    Raises:
        UNREADABLE: it is no picture.
    """
    if isinstance(content, VideoFile):
        raise ImageError("it is a video, and no picture")
    if isinstance(content, np.ndarray):
        picture = to_rgb(content)
        return picture, picture.size
    with open_encoded(content) as image:
        size = image.size
        if at_least is not None:
            image.draft("RGB", (at_least, at_least))
        return to_rgb(image), size


def denormalised(values: np.ndarray, recipe: PreprocessSpec) -> Image.Image:
    """Encoder input [H, W, 3] back to the picture that it was."""
    unit = values * np.array(recipe.std, np.float32) + np.array(recipe.mean, np.float32)
    return Image.fromarray(np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8))
