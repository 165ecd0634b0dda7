"""Scored images as FiftyOne has a data set on disk, without FiftyOne: its ``FiftyOneDataset``, pictures left in place.

DIR/metadata.json     the data set: name, what it was scored with, fields and their types
DIR/samples.json      a sample for each picture: filepath, tags and the fields' values, in the input's order

Both are extended JSON as MongoDB writes it. They follow FiftyOne 1.0; later versions bring them up to date themselves.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from jepa_jax._version import __version__
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.images.sources import Records
from jepa_jax.paths import AnyPath, PathLike, make_output, names_in, to_path
from jepa_jax.scored.image_reader import ImageReader

if TYPE_CHECKING:
    from jepa_jax.scored.scored_images import ScoredImages

LAYOUT = "1.0.0"
"""The version of FiftyOne whose layout this is: older ones refuse it, younger ones migrate it."""

FAILED, UNFAMILIAR = "failed", "unfamiliar"
"""Tags: of a picture without a score, whose reason is in ``failure``; of one unlike the sample of the predictor."""

_OMITTED = ("place", "bytes")
_FIELDS = "fiftyone.core.fields."
_IMAGE_METADATA = {
    "size_bytes": "IntField",
    "mime_type": "StringField",
    "width": "IntField",
    "height": "IntField",
    "num_channels": "IntField",
}
_ROWS = 1000


@dataclass(frozen=True)
class FiftyOneFolder:
    """What was written.

    Attributes:
        directory: for ``fiftyone.Dataset.from_dir``.
        samples: pictures in it, those without a score among them.
        left_out: images that are no file of their own on this machine (in archives, tables or on a store), which
            FiftyOne could not open.
    """

    directory: str
    samples: int
    left_out: int

    @property
    def command(self) -> str:
        """What loads it, in Python."""
        return f"fiftyone.Dataset.from_dir({self.directory!r}, dataset_type=fiftyone.types.FiftyOneDataset)"


def write_fiftyone(scored: ScoredImages, directory: PathLike, name: str | None = None) -> FiftyOneFolder:
    """Write a new directory that FiftyOne loads; see `ScoredImages.to_fiftyone`.

    Raises:
        ArgumentError: the directory holds something.
        JobError: the images are gone, or none is a file of its own, or they are clips.
    """
    folder = to_path(directory)
    if names_in(folder) or folder.is_file():
        raise ArgumentError(f"directory {folder} is not empty; name a new one.")
    reader = ImageReader.behind(scored.manifest, scored.source)
    if reader is None or not isinstance(reader.source, Records):
        raise JobError("the images are not where they were scored; say where they are now (--images, source=).")
    if reader.recipe.frames is not None:
        raise JobError("these are clips of videos; the folder for FiftyOne is of pictures.")
    everything = [*scored.keys, *scored.failures["key"].to_pylist()]
    files = {key: path for key in everything if (path := _file(reader, key)) is not None}
    if not files:
        raise JobError(
            "no image is a file of its own on this machine, as FiftyOne needs them: they lie in archives, in tables "
            "or on a store."
        )
    make_output(folder)
    described = _Described.of(scored, name or folder.name or "scored")
    with (folder / "samples.json").open("w", encoding="utf-8") as out:
        out.write('{"samples": [')
        for number, sample in enumerate(_samples(scored, files, described)):
            out.write(f"{',' * (number > 0)}\n{json.dumps(sample, allow_nan=False)}")
        out.write("\n]}\n")
    _write_json(folder / "metadata.json", described.document(scored))  # last: with it the folder is whole
    return FiftyOneFolder(str(folder), len(files), len(everything) - len(files))


def _file(reader: ImageReader, key: str) -> str | None:
    path = reader.path(key)
    return None if path is None or "://" in path else path


@dataclass(frozen=True)
class _Described:
    """The data set itself.

    Attributes:
        name: of the data set.
        id: of it: 24 hexadecimal digits, the same for the same scores.
        now: when it was written.
        fields: name to class of each of a sample's fields but FiftyOne's own.
    """

    name: str
    id: str
    now: dict[str, str]
    fields: dict[str, str]

    @classmethod
    def of(cls, scored: ScoredImages, name: str) -> _Described:
        fields = {
            field.name: kind
            for field in scored.table.schema
            if field.name not in _OMITTED and (kind := _class_of(field.type)) is not None
        }
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        pinned = json.dumps(scored.manifest.get("pinned", {}), sort_keys=True)
        return cls(name, _identifier(pinned), {"$date": now}, fields | {"failure": "StringField"})

    def document(self, scored: ScoredImages) -> dict[str, Any]:
        """metadata.json."""
        own = [
            self._field("id", "ObjectIdField", stored="_id"),
            self._field("filepath", "StringField"),
            self._field("tags", "ListField", subfield=f"{_FIELDS}StringField"),
            self._field(
                "metadata",
                "EmbeddedDocumentField",
                embedded_doc_type="fiftyone.core.metadata.ImageMetadata",
                fields=[self._field(*item) for item in _IMAGE_METADATA.items()],
            ),
            self._field("created_at", "DateTimeField", read_only=True),
            self._field("last_modified_at", "DateTimeField", read_only=True),
            self._field("_dataset_id", "ObjectIdField"),
            self._field("_rand", "FloatField"),
            self._field("_media_type", "StringField"),
        ]
        said = {field.name: (field.metadata or {}).get(b"doc", b"").decode() or None for field in scored.table.schema}
        said["failure"] = "why it has no score"
        ours = [self._field(name, kind, description=said[name]) for name, kind in self.fields.items()]
        pinned = scored.manifest.get("pinned", {})
        return {
            "_id": {"$oid": self.id},
            "name": self.name,
            "slug": self.name,
            "version": LAYOUT,
            "created_at": self.now,
            "last_modified_at": self.now,
            "sample_collection_name": f"samples.{self.id}",
            "persistent": False,
            "media_type": "image",
            "group_media_types": {},
            "tags": [],
            "description": f"JEPA-SCORE by {pinned.get('encoder', 'unknown')}; nats, higher = more typical",
            "info": {"jepa_jax": __version__, "scored_with": pinned},
            "app_config": {
                "media_fields": ["filepath"],
                "grid_media_field": "filepath",
                "modal_media_field": "filepath",
                "plugins": {},
            },
            "classes": {},
            "default_classes": [],
            "mask_targets": {},
            "default_mask_targets": {},
            "skeletons": {},
            "sample_fields": [*own, *ours],
            "frame_fields": [],
            "saved_views": [],
            "workspaces": [],
            "annotation_runs": {},
            "brain_methods": {},
            "evaluations": {},
            "runs": {},
        }

    def _field(self, name: str, kind: str, stored: str | None = None, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "ftype": _FIELDS + kind,
            "embedded_doc_type": None,
            "subfield": None,
            "fields": [],
            "db_field": stored or name,
            "description": None,
            "info": None,
            "read_only": False,
            "created_at": self.now,
        } | more


def _samples(scored: ScoredImages, files: dict[str, str], described: _Described) -> Iterator[dict[str, Any]]:
    """The samples, scored ones first; images that are no files are left out."""

    def sample(key: str, tags: list[str], values: dict[str, Any]) -> dict[str, Any]:
        digest = hashlib.sha256(f"{described.id} {key}".encode()).digest()
        return {
            "_id": {"$oid": digest[:12].hex()},
            "filepath": files[key],
            "tags": tags,
            "metadata": None,
            "_media_type": "image",
            "_rand": int.from_bytes(digest[12:18]) / 2**48,  # by it FiftyOne draws random samples
            "_dataset_id": {"$oid": described.id},
            "created_at": described.now,
            "last_modified_at": described.now,
            **{name: values.get(name) for name in described.fields},
        }

    for batch in scored.table.select([name for name in described.fields if name != "failure"]).to_batches(_ROWS):
        columns = {name: _values(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
        for row in range(batch.num_rows):
            values = {name: column[row] for name, column in columns.items()}
            if values["key"] in files:
                yield sample(values["key"], [UNFAMILIAR] if values.get(UNFAMILIAR) else [], values)
    for failure in scored.failures.to_pylist():
        if failure["key"] in files:
            yield sample(failure["key"], [FAILED], {"key": failure["key"], "failure": failure["reason"]})


def _class_of(kind: pa.DataType) -> str | None:
    """FiftyOne's class for values of an Arrow type; None where it has none."""
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return "VectorField"
    tests = {
        "FloatField": pa.types.is_floating,
        "IntField": pa.types.is_integer,
        "BooleanField": pa.types.is_boolean,
        "StringField": pa.types.is_string,
    }
    return next((name for name, test in tests.items() if test(kind)), None)


def _values(column: pa.Array) -> list[Any]:
    """A column's values as extended JSON."""
    if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
        return [_number(value) if isinstance(value, float) else value for value in column.to_pylist()]
    return [None if value is None else _vector(np.asarray(value, np.float32)) for value in column.to_pylist()]


def _number(value: float) -> float | dict[str, str]:
    if math.isfinite(value):
        return value
    return {"$numberDouble": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}


def _vector(values: np.ndarray) -> dict[str, Any]:
    """As FiftyOne stores arrays: zlib over NumPy's format."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    content = base64.b64encode(zlib.compress(file.getvalue())).decode("ascii")
    return {"$binary": {"base64": content, "subType": "00"}}


def _identifier(text: str) -> str:
    """An ObjectId: 24 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _write_json(path: AnyPath, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
