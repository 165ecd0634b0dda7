"""Scored images in a notebook: the table of a job, with its pictures at hand."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.images.sources import Records
from jepa_jax.jobs.output.manifest import read_manifest
from jepa_jax.jobs.output.schema import FAILURE_SCHEMA
from jepa_jax.paths import PathLike, to_path
from jepa_jax.scored.image_reader import ImageReader
from jepa_jax.scored.job import read_rows, table_of_job
from jepa_jax.scored.table import ScoreTable, noun_of
from jepa_jax.short_table import short_table

if TYPE_CHECKING:
    import pandas

    from jepa_jax.scored.fiftyone_export import FiftyOneFolder


@dataclass(frozen=True, repr=False)
class ScoredImages:
    """What a job wrote, in memory: `score_folder` returns it, and `ScoredImages.read` reads any finished job.

    Prints as a short table; a notebook shows the rarest and the most typical pictures.

    Attributes:
        table: a row per scored image in the input's order, columns as in the files of ``jepa-jax score``: ``key``,
            ``place``, ``bytes``, ``score``, ``score_error``, ``precision`` and so on.
        failures: ``key``, ``reason`` and ``bytes`` of every image that has no score, or is no longer in the input.
        manifest: what the scores depend on.
        source: the input, for the pictures; by default where the job found it.
    """

    table: pa.Table
    failures: pa.Table
    manifest: dict[str, Any]
    source: Records | None = field(default=None, compare=False)

    @classmethod
    def read(cls, directory: PathLike, source: Records | None = None) -> ScoredImages:
        """What a finished job left in its output directory.

        Raises:
            JobError: there is no job, or it is unfinished.
        """
        place = to_path(directory)
        manifest = read_manifest(place) if place.is_dir() else None
        if manifest is None:
            raise JobError(f"{directory} has no manifest.json: it is no output of jepa-jax score or score_folder.")
        if not manifest.get("complete"):
            raise JobError(f"the job in {directory} is unfinished; give the call or command that began it again.")
        table, failures = read_rows(place)
        return cls(table, pa.Table.from_pylist(list(failures), FAILURE_SCHEMA), manifest, source)

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def scores(self) -> np.ndarray:
        """[N], nats; higher = denser = more typical."""
        return self.table["score"].to_numpy()

    @property
    def keys(self) -> list[str]:
        """[N]; each names a picture of the input."""
        return self.table["key"].to_pylist()

    def to_arrow(self) -> pa.Table:
        """The table, as pyarrow has it; each column's metadata says what it is."""
        return self.table

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a DataFrame, a row per scored image.

        Raises:
            JobError: pandas is not installed.
        """
        try:
            return self.table.to_pandas()
        except ImportError as error:
            raise JobError("to_pandas needs pandas, which is not installed: pip install pandas.") from error

    def to_fiftyone(self, directory: PathLike, name: str | None = None) -> FiftyOneFolder:
        """Write a new directory that FiftyOne loads as a data set: every picture with its score, copying none.

        ``fiftyone.Dataset.from_dir(directory, dataset_type=fiftyone.types.FiftyOneDataset)`` loads it. The columns of
        the table are fields of the same names (``embedding`` a vector); images without a score have the tag ``failed``
        and their reason in ``failure``, unfamiliar ones the tag ``unfamiliar``. FiftyOne need not be installed here.

        Args:
            directory: new or empty.
            name: of the data set; by default the directory's.

        Raises:
            ArgumentError: the directory holds something.
            JobError: the images are gone, or none is a file of its own on this machine, or they are clips.
        """
        from jepa_jax.scored.fiftyone_export import write_fiftyone

        return write_fiftyone(self, directory, name)

    def order(self, *, highest: bool = False) -> np.ndarray:
        """[N] row numbers by score, as `numpy.argsort` gives them: rarest first, or with ``highest`` most typical."""
        return np.argsort(-self.scores if highest else self.scores, kind="stable")

    def picture(self, row: int, side: int = 160) -> Image.Image | None:
        """The picture of a row, at most ``side`` pixels wide and high; None where it cannot be read any more.

        Of a clip some frames in a row, each ``side`` pixels wide and high.

        Raises:
            ArgumentError: there is no such row.
        """
        if not -len(self) <= row < len(self):
            raise ArgumentError(f"row={row} is none of the {len(self)} rows.")
        return None if self._reader is None else self._reader.thumbnail(self.keys[row], side)

    def as_score_table(self, name: str | None = None) -> ScoreTable:
        """What `evaluate`, `build_report` and the plots take.

        Args:
            name: of the set; by default the encoder's.

        Raises:
            JobError: no image is scored.
        """
        encoder = self.manifest.get("pinned", {}).get("encoder", "images")
        return table_of_job(self.table, self.manifest, tuple(self.failures.to_pylist()), name or encoder, "this table")

    @functools.cached_property
    def _reader(self) -> ImageReader | None:
        return ImageReader.behind(self.manifest, self.source)

    def __repr__(self) -> str:
        lines = [self._title()]
        if len(self):
            shown = [name for name in ("key", "score", "gaussian_score", *_SHOWN) if name in self.table.column_names]
            lines.append(short_table({name: self.table[name].to_pylist() for name in shown}))
        return "\n".join(lines)

    def _title(self) -> str:
        pinned = self.manifest.get("pinned", {})
        failed = f", {self.failures.num_rows:,} without a score (see .failures)" if self.failures.num_rows else ""
        nouns = noun_of(self.manifest) + "s" * (len(self) != 1)
        return (
            f"ScoredImages: {len(self):,} {nouns} by {pinned.get('encoder', 'unknown')} at "
            f"{pinned.get('image_size', '?')} pixels{failed}; nats, higher = more typical"
        )

    def _repr_html_(self) -> str:
        """The rarest and the most typical pictures with their scores, for a notebook."""
        from jepa_jax.scored.notebook_gallery import gallery

        return gallery(self, self._title())


_SHOWN = ("score_low", "score_high", "score_error", "precision", "method")
