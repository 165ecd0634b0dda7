"""TFDS: records keep their numbers, features that are no pictures are refused by their dtype."""

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_inputs import picture, refused

import jepa_jax as jj
from jepa_jax.errors import ImageError, JobError
from jepa_jax.images import open_source
from jepa_jax.images.sources.records import Unusable
from jepa_jax.jobs.output.records import JobRecords, keys_digest, pin_records, write_records
from jepa_jax.paths import to_path


def tfds_directory(place: Path, features: dict[str, object], record: dict[str, bytes], count: int) -> str:
    """A data set without TensorFlow, which TFDS would need to encode pictures: they are given as PNG."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Drawn(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        """Records that are alike, in two splits."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            yield from ((i, {name: io.BytesIO(png) for name, png in record.items()}) for i in range(count))

    builder = Drawn(data_dir=place, file_format="array_record")
    builder.download_and_prepare()
    return str(builder.data_dir)


def test_keys_of_a_slice_are_the_records_own(tmp_path: Path):
    tfds = pytest.importorskip("tensorflow_datasets")
    directory = tfds_directory(tmp_path, {"image": tfds.features.Image()}, {"image": picture()}, 8)
    keys = {split: list(open_source(f"tfds:{directory}/{split}").keys) for split in ("train[3:6]", "train[6:]")}
    assert keys == {"train[3:6]": ["3", "4", "5"], "train[6:]": ["6", "7"]}
    for split, expected in {
        "train": list("01234567"),
        "train[:25%]": ["0", "1"],
        "train[-2:]": ["6", "7"],
        "train[75%:]": ["6", "7"],
        "train[:1]+train[5:6]": ["0", "5"],
        "train[7:]+test[:2]": ["train/7", "test/0", "test/1"],
        "train[:2]+train[1:3]": ["0", "1", "1#2", "2"],
    }.items():
        assert list(open_source(f"tfds:{directory}/{split}").keys) == expected
    source = open_source(f"tfds:{directory}/train[:2]+train[1:3]")
    assert isinstance(source.locators[2], Unusable)
    refused(f"tfds:{directory}/train[:0]", "holds no record")


def test_several_files_of_a_kind_of_which_one_is_an_input(tmp_path: Path):
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.zeros((2, 8, 8), np.uint8))
    refused(tmp_path / "*.npy", "2 files together are of no known kind; give one")
    assert len(open_source(tmp_path / "a*.npy").keys) == 2


def test_data_sets_below_a_folder_are_no_archives(tmp_path: Path):
    tfds = pytest.importorskip("tensorflow_datasets")
    directory = tfds_directory(tmp_path, {"image": tfds.features.Image()}, {"image": picture()}, 2)
    with pytest.raises(jj.ArgumentError, match=f"{directory} is a TFDS directory; give the split as well"):
        open_source(tmp_path)


def test_damaged_data_sets(tmp_path: Path):
    tfds = pytest.importorskip("tensorflow_datasets")
    directory = Path(tfds_directory(tmp_path, {"image": tfds.features.Image()}, {"image": picture()}, 2))
    shard = "drawn-train.array_record-00000-of-00001"
    half = (directory / shard).read_bytes()[:40_000]
    cases = [(name, damaged) for name in ("features.json", "dataset_info.json") for damaged in (b"{", b"\xff", None)]
    for number, (name, damaged) in enumerate([*cases, (shard, None), (shard, half), (shard, b"")]):
        copy = directory.with_name(str(number))  # another name: what was opened is remembered
        shutil.copytree(directory, copy)
        (copy / name).unlink()
        if damaged is not None:
            (copy / name).write_bytes(damaged)
        if name == shard and damaged is not None:
            source = open_source(f"tfds:{copy}/train")
            with pytest.raises((ImageError, RuntimeError)):
                source.read(0)
        else:
            refused(f"tfds:{copy}/train", "cannot be opened: ")


def test_a_job_begun_when_slices_were_counted_from_0_is_not_resumed_as_another(tmp_path: Path):
    tfds = pytest.importorskip("tensorflow_datasets")
    directory = tfds_directory(tmp_path, {"image": tfds.features.Image()}, {"image": picture()}, 8)
    source = open_source(f"tfds:{directory}/train[3:6]")
    begun = dataclasses.replace(source, keys=["0", "1", "2"])
    write_records(to_path(tmp_path), JobRecords(begun, (3,)))
    manifest = {"pinned": {"keys_sha256": keys_digest(begun.keys)}}
    with pytest.raises(JobError, match=r"belongs to another job .*new output directory"):
        pin_records(to_path(tmp_path), source, manifest, write=False, extend=False)


def test_images_that_are_no_pictures(tmp_path: Path):
    tfds = pytest.importorskip("tensorflow_datasets")
    feature = tfds.features.Image(shape=(10, 12, 3))
    directory = tfds_directory(tmp_path, {"image": feature}, {"image": picture()}, 2)
    described = Path(directory) / "features.json"
    described.write_text(described.read_text().replace("uint8", "float32").replace('"3"', '"1"'))
    refused(f"tfds:{directory}/train", "its feature 'image' holds float32 values")


def test_a_mask_beside_an_image_and_two_images(tmp_path: Path):
    tfds = pytest.importorskip("tensorflow_datasets")
    image, mask = tfds.features.Image(), tfds.features.LabeledImage(labels=3, shape=(10, 12, 1))
    values = {"photo": picture(7), "mask": picture()}
    directory = tfds_directory(tmp_path / "mask", {"photo": image, "mask": mask}, values, 2)
    assert open_source(f"tfds:{directory}/train").read(0) == picture(7)
    assert open_source(f"tfds:{directory}/train::mask").read(0) == picture()
    values = {"left": picture(1), "right": picture(2)}
    directory = tfds_directory(tmp_path / "two", {"left": image, "right": tfds.features.Image()}, values, 2)
    refused(f"tfds:{directory}/train", "and none is called 'image'; say which one is scored: .*/train::FEATURE")
    assert open_source(f"tfds:{directory}/train::right").read(0) == picture(2)
    refused(f"tfds:{directory}/train::middle", "no image feature 'middle'")
