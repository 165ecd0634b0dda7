"""TensorFlow Datasets, read through ArrayRecord and without TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.kind import Package, SourceKind
from jepa_jax.images.sources.records import Records, full_path

PREFIX = "tfds:"


@dataclass(frozen=True)
class TfdsReader:
    """From a record's number in its split to the encoded image; each process opens the data set once.

    Attributes:
        dataset: a prepared directory, or a name.
        split: of the data set, slices such as ``train[:10%]`` included.
        feature: which feature is the image.
    """

    dataset: str
    split: str
    feature: str

    def __call__(self, index: int) -> bytes:
        """The image as it is stored, so that it is decoded as every other input."""
        return _data_source(self.dataset, self.split, self.feature)[index][self.feature]


def open_tfds(name: str, files: Sequence[str]) -> Records:
    """``tfds:NAME/SPLIT`` or ``tfds:DIR/SPLIT``; the key is the record's number in its split, from 0.

    Raises:
        ArgumentError: the data set, the split or its image cannot be found.
    """
    if files:
        raise ArgumentError(f"input {name} is a TFDS directory; give the split as well: {PREFIX}{name}/SPLIT.")
    dataset, slash, split = name.removeprefix(PREFIX).rpartition("/")
    if not slash or not dataset or not split:
        raise ArgumentError(f"input {name} must be tfds:NAME/SPLIT or tfds:DIR/SPLIT, such as tfds:imagenet_v2/test.")
    try:
        feature = _image_feature(_builder(dataset).info.features, name)
        count = len(_data_source(dataset, split, feature))
    except ArgumentError:
        raise
    except Exception as error:  # TFDS raises whatever its many parts raise
        raise ArgumentError(
            f"input {name} cannot be opened: {(str(error).splitlines() or [type(error).__name__])[0]}. The data set "
            "must be prepared already, in the file format array_record."
        ) from error
    reader = TfdsReader(dataset, split, feature)
    directory = (dataset,) if epath.Path(dataset).is_dir() else ()
    return Records(name, [str(i) for i in range(count)], range(count), reader, directory, positional=True)


def rows_of_class(name: str, label: str) -> list[int]:
    """Numbers of a split's records with a class, by its name or number; reads every record, decodes no image.

    Raises:
        ArgumentError: the data set has no feature ``label``, or no such class.
    """
    dataset, _, split = name.removeprefix(PREFIX).rpartition("/")
    features = dict(_builder(dataset).info.features.items())
    feature = features.get("label")
    if feature is None or not hasattr(feature, "names"):
        raise ArgumentError(f"class={label}: {name} has the features {sorted(features)} and no class 'label'.")
    if label not in feature.names and not (label.isdigit() and int(label) < feature.num_classes):
        raise ArgumentError(f"class={label!r} is none of the {feature.num_classes} classes of {name}.")
    number = feature.str2int(label) if label in feature.names else int(label)
    source = _data_source(dataset, split, _image_feature(features, name))
    return [i for i in range(len(source)) if source[i]["label"] == number]


@functools.lru_cache(maxsize=4)
def _builder(dataset: str) -> Any:
    import tensorflow_datasets

    if epath.Path(dataset).is_dir():
        return tensorflow_datasets.builder_from_directory(dataset)
    return tensorflow_datasets.builder(dataset, file_format="array_record")


@functools.lru_cache(maxsize=4)
def _data_source(dataset: str, split: str, feature: str) -> Any:
    import tensorflow_datasets

    return _builder(dataset).as_data_source(split=split, decoders={feature: tensorflow_datasets.decode.SkipDecoding()})


def _image_feature(features: Any, name: str) -> str:
    import tensorflow_datasets

    images = [key for key, feature in features.items() if isinstance(feature, tensorflow_datasets.features.Image)]
    if len(images) != 1 and "image" not in images:
        raise ArgumentError(f"input {name} has the image features {images}; one of them must be called 'image'.")
    return images[0] if len(images) == 1 else "image"


def _is_tfds_directory(entries: Sequence[str]) -> bool:
    return "dataset_info.json" in entries


def _in_full(name: str) -> str:
    dataset, slash, split = name.removeprefix(PREFIX).rpartition("/")
    return f"{PREFIX}{full_path(dataset)}{slash}{split}" if epath.Path(dataset).is_dir() else name


TFDS = SourceKind(
    wording="tfds:NAME/SPLIT, tfds:DIR/SPLIT",
    read=open_tfds,
    prefix=PREFIX,
    is_folder=_is_tfds_directory,
    in_full=_in_full,
    package=Package("tensorflow_datasets", "TFDS data sets"),
)
