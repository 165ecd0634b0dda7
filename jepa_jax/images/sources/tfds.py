"""TensorFlow Datasets, read through ArrayRecord and without TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from jepa_jax.errors import ArgumentError, JepaJaxError
from jepa_jax.images.reasons import sentence
from jepa_jax.images.sources.array_record import whole
from jepa_jax.images.sources.kind import PART, Package, SourceKind, of_the_machine
from jepa_jax.images.sources.records import Records, full_path, unique_records
from jepa_jax.paths import to_path

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
        """The image as it is stored, so that it is decoded as every other input.

        Raises:
            ImageError: it is not there.
        """
        return whole(_data_source(self.dataset, self.split, self.feature)[index][self.feature])


def open_tfds(name: str, files: Sequence[str], feature: str | None = None) -> Records:
    """``tfds:NAME/SPLIT`` or ``tfds:DIR/SPLIT``; the key is the record's number in its split, from 0.

    Records of a slice keep the number that they have in the whole split: ``train[3:6]`` has the keys 3, 4 and 5. Of
    several splits (``train+test``) each stands before its records' keys, as ``test/5``.

    Args:
        name: what the user called the input.
        files: none, or a folder that was given without a split.
        feature: which one is the image, where several are.

    Raises:
        ArgumentError: the data set, the split or its image cannot be found, or its images are none of 8 bits.
    """
    if files:
        raise ArgumentError(f"input {name} is a TFDS directory; give the split as well: {PREFIX}{name}/SPLIT.")
    dataset, split = _dataset_and_split(name if feature is None else name.removesuffix(f"{PART}{feature}"))
    if not dataset or not split:
        raise ArgumentError(f"input {name} must be tfds:NAME/SPLIT or tfds:DIR/SPLIT, such as tfds:imagenet_v2/test.")
    for opened in (_builder, _data_source):  # since this process read it last, the data set may have been made anew
        opened.cache_clear()
    try:
        builder = _builder(dataset)
        feature = _image_feature(builder.info.features, name, feature)
        numbers = _numbers(builder.info.splits, split)
        keys = _keys(numbers)
        if not keys:
            raise ArgumentError(f"input {name} holds no record.")
        shards = [to_path(part.filename) for part in builder.info.splits[split].file_instructions]
        if missing := [shard for shard in shards if not shard.exists()]:
            raise ValueError(f"{len(missing)} of its {len(shards)} files are not there, such as {missing[0]}")
        count = len(_data_source(dataset, split, feature))
        if count != len(keys):
            raise ValueError(f"it holds {count} records, and its description says {len(keys)}")
    except JepaJaxError:
        raise
    except Exception as error:  # TFDS raises whatever its many parts raise
        if of_the_machine(error):
            raise
        raise ArgumentError(
            f"input {name} cannot be opened: {sentence(error)}. The data set must be prepared already, in the file "
            "format array_record."
        ) from error
    reader = TfdsReader(dataset, split, feature)
    directory = (dataset,) if to_path(dataset).is_dir() else ()
    unique, locators = unique_records(zip(keys, range(count), strict=True))
    places = _NumberInSplit(full_path(dataset) if directory else dataset, tuple(numbers))
    return Records(name, unique, locators, reader, directory, positional=True, places=places)


def _dataset_and_split(name: str) -> tuple[str, str]:
    dataset, slash, split = name.removeprefix(PREFIX).rpartition("/")
    return (dataset, split) if slash else ("", "")


def _numbers(splits: Any, split: str) -> list[tuple[str, range]]:
    """The splits that records are from, and their numbers there."""
    import tensorflow_datasets

    parts = tensorflow_datasets.core.ReadInstruction.from_spec(split).to_absolute(dict(splits.items()))
    names = [str(part.splitname) for part in parts]
    sliced = (slice(part.from_, part.to) for part in parts)
    return [(n, range(*s.indices(splits[n].num_examples))) for n, s in zip(names, sliced, strict=True)]


def _keys(numbers: Sequence[tuple[str, range]]) -> list[str]:
    several = len({split for split, _ in numbers}) > 1
    return [f"{split}/{number}" if several else str(number) for split, within in numbers for number in within]


@dataclass(frozen=True)
class _NumberInSplit:
    """From a record's number to its place: its number in the whole of the split that it is from."""

    dataset: str
    numbers: tuple[tuple[str, range], ...]

    def __call__(self, index: int) -> str | None:
        for split, within in self.numbers:
            if index < len(within):
                return f"{PREFIX}{self.dataset}/{split}{PART}{within[index]}"
            index -= len(within)
        return None


def rows_of_class(name: str, label: str) -> list[int]:
    """Numbers of a split's records with a class, by its name or number; reads every record, decodes no image.

    Raises:
        ArgumentError: the data set has no feature ``label``, or no such class.
    """
    dataset, split = _dataset_and_split(name)
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

    if to_path(dataset).is_dir():
        return tensorflow_datasets.builder_from_directory(dataset)
    return tensorflow_datasets.builder(dataset, file_format="array_record")


@functools.lru_cache(maxsize=4)
def _data_source(dataset: str, split: str, feature: str) -> Any:
    import tensorflow_datasets

    return _builder(dataset).as_data_source(split=split, decoders={feature: tensorflow_datasets.decode.SkipDecoding()})


def _image_feature(features: Any, name: str, wanted: str | None = None) -> str:
    """The feature that is scored.

    Raises:
        ArgumentError: there is none, several could be meant, or it is no picture.
    """
    import tensorflow_datasets

    kinds = tensorflow_datasets.features
    images = {key: feature for key, feature in features.items() if isinstance(feature, kinds.Image)}
    chosen = wanted
    if chosen is None:
        pictures = [key for key, feature in images.items() if not isinstance(feature, kinds.LabeledImage)]
        if len(pictures) != 1 and "image" not in pictures:
            raise ArgumentError(
                f"input {name} has the image features {pictures or list(images)}, and none is called 'image'; say "
                f"which one is scored: {name}{PART}FEATURE."
            )
        chosen = pictures[0] if len(pictures) == 1 else "image"
    if chosen not in images:
        raise ArgumentError(f"input {name} has no image feature {chosen!r}; it has {list(images)}.")
    dtype = np.dtype(cast("Any", images[chosen].np_dtype))
    if dtype not in (np.uint8, np.uint16):
        raise ArgumentError(
            f"input {name}: its feature {chosen!r} holds {dtype} values, stored as the bytes of a picture that is not "
            "theirs; scores need pictures of uint8 or uint16."
        )
    return chosen


def _is_tfds_directory(entries: Sequence[str]) -> bool:
    return "dataset_info.json" in entries


def _in_full(name: str) -> str:
    dataset, slash, split = name.removeprefix(PREFIX).rpartition("/")
    return f"{PREFIX}{full_path(dataset)}{slash}{split}" if to_path(dataset).is_dir() else name


TFDS = SourceKind(
    wording="tfds:NAME/SPLIT, tfds:DIR/SPLIT",
    read=open_tfds,
    prefix=PREFIX,
    is_folder=_is_tfds_directory,
    in_full=_in_full,
    package=Package("tensorflow_datasets", "TFDS data sets"),
    noun="a TFDS data set",
    read_part=open_tfds,
)
