"""What could be read in two ways is refused before work begins, with both named; nothing vanishes without a word."""

import csv
import dataclasses
import io
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from jobs_shared import tiny_encoder
from PIL import Image

import jepa_jax as jj
from jepa_jax.errors import ImageError, JobError
from jepa_jax.images import Records, open_source
from jepa_jax.images.sources import name_in_full
from jepa_jax.images.sources.csv_table import read_csv
from jepa_jax.images.sources.listing import PATH_COLUMNS
from jepa_jax.images.sources.records import Unusable
from jepa_jax.jobs.pinned import keys_digest, pin_records, write_records


def picture(red: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 10), (red, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures."""
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / f"in/{i}.png").write_bytes(picture(i))
    return tmp_path


def listed(path: Path, text: str) -> Records:
    path.write_text(text)
    return open_source(path)


def refused(path: object, message: str) -> str:
    with pytest.raises(jj.ArgumentError, match=message) as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Lists


def test_the_first_image_of_a_list_without_a_header_is_there(folder: Path):
    source = listed(folder / "list.csv", "in/0.png\nin/1.png\nin/2.png\n")
    assert list(source.keys) == ["in/0.png", "in/1.png", "in/2.png"]
    assert source.read(0) == picture(0)
    (folder / "in/zero").write_bytes(picture(7))
    source = listed(folder / "list.csv", "in/zero\nin/1.png\n")
    assert list(source.keys) == ["in/zero", "in/1.png"]


@pytest.mark.parametrize("name", ["path", "image", "img", "photo of it"])
def test_one_column_may_have_any_name(name: str, folder: Path):
    source = listed(folder / "list.csv", f"{name}\nin/1.png\nin/2.png\n")
    assert list(source.keys) == ["in/1.png", "in/2.png"]


def test_a_first_row_that_may_be_a_name_or_a_path_is_refused(folder: Path):
    (folder / "list.csv").write_text("0001\n0002\n")
    refused(folder / "list.csv", "begins with '0001': the name of its one column, or the first path. Write 'path'")
    for first in ("in/0", "a.heic", "image.path"):
        (folder / "list.csv").write_text(f"{first}\nin/1.png\n")
        refused(folder / "list.csv", "the name of its one column, or the first path")
    (folder / "list.csv").write_text("in/0.png,cat\nin/1.png,dog\n")
    refused(folder / "list.csv", "has the path 'in/0.png' in its first row, which must name the columns")
    (folder / "list.csv").write_text("in/0.png,image\nin/1.png,image\n")
    refused(folder / "list.csv", "has the path 'in/0.png' in its first row")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_read_where_the_header_tells_them(separator: str, folder: Path):
    rows = [("path", "key"), ("in/0.png", "a,b"), ("in/1.png", "c")]
    source = listed(folder / "list.csv", "".join(separator.join(row) + "\n" for row in rows))
    assert list(source.keys) == ["a,b", "c"]
    assert source.read(1) == picture(1)
    source = listed(folder / "list.csv", "".join(separator.join(map('"{}"'.format, row)) + "\n" for row in rows))
    assert list(source.keys) == ["a,b", "c"]
    (folder / "list.csv").write_text(separator.join(["in/0.png", "cat"]) + "\n")
    refused(folder / "list.csv", "one column without a name, or several separated by")


def test_a_comma_in_a_path_is_quoted_and_a_semicolon_is_part_of_it(folder: Path):
    source = listed(folder / "list.csv", 'path\n"a,b.png"\nc;d.png\n')
    assert list(source.keys) == ["a,b.png", "c;d.png"]


def test_columns_that_could_all_be_the_paths(folder: Path):
    (folder / "list.csv").write_text("path,image\nin/0.png,in/1.png\n")
    refused(folder / "list.csv", r"columns path and image, and each could hold .*list\.csv::path\.$")
    assert open_source(f"{folder}/list.csv::image").read(0) == picture(1)
    assert open_source(f"{folder}/list.csv::path").read(0) == picture(0)
    refused(f"{folder}/list.csv::photo", "0 columns called 'photo'")
    table = pa.table({"path": ["in/0.png"], "file_name": ["in/2.png"], "where": ["in/1.png"]})
    pq.write_table(table, folder / "list.parquet")
    refused(folder / "list.parquet", "columns path and file_name, and each could")
    assert open_source(f"{folder}/list.parquet::where").read(0) == picture(1)


def test_a_column_that_is_there_twice(folder: Path):
    (folder / "list.csv").write_text("path,path\nin/0.png,in/1.png\n")
    refused(folder / "list.csv", "2 columns called 'path'")
    (folder / "list.csv").write_text("key,path,key\n1,in/0.png,2\n")
    refused(folder / "list.csv", "2 columns called 'key'")
    assert list(listed(folder / "list.csv", "path,label,label\nin/0.png,1,2\n").keys) == ["in/0.png"]
    twice = pa.Table.from_arrays([pa.array(["in/0.png"]), pa.array(["in/1.png"])], ["path", "path"])
    pq.write_table(twice, folder / "list.parquet")
    refused(folder / "list.parquet", "2 columns called 'path'")


def test_a_list_of_a_folder_that_is_away_is_refused(folder: Path):
    (folder / "list.csv").write_text("path\nin/0.png\naway/0.png\naway/1.png\n")
    refused(folder / "list.csv", "lists 2 of its 3 paths in .*/away, which is not there. Bring that folder back")
    far = "".join(f"disk/{i}/{i}.png\n" for i in range(200))
    (folder / "list.csv").write_text(f"path\n{far}in/0.png\n")
    refused(folder / "list.csv", "lists 200 of its 201 paths in .*/disk, which")
    few = "".join(f"in/{i}.png\n" for i in range(3)) + "away/0.png\n"
    assert len(listed(folder / "list.csv", f"path\n{few}").keys) == 4


# Folders


def test_archives_and_stray_pictures(folder: Path):
    for name in ("00000.tar", "00001.tar"):
        write_tar(folder / "in" / name, {f"{name}.png": picture()})
    message = refused(folder / "in", r"holds 3 images \(0\.png\) and 2 files \(00000\.tar\) of further pictures")
    assert "or a pattern" in message
    assert len(open_source(f"{folder}/in/*.tar").keys) == 2


@pytest.mark.parametrize("place", ["", "deep/"])
def test_arrays_and_archives_below_pictures(place: str, folder: Path):
    (folder / "in" / place).mkdir(exist_ok=True)
    np.save(folder / f"in/{place}features.npy", np.zeros((4, 8), np.float32))
    (folder / "in/labels.csv").write_text("file_name,label\n0.png,1\n")
    source = open_source(folder / "in")
    assert (len(source.keys), source.left_out) == (3, 2)
    np.save(folder / f"in/{place}more.npy", np.zeros((4, 8, 8, 3), np.uint8))
    refused(folder / "in", r"and 1 file \(.*more\.npy\) of further pictures")
    (folder / f"in/{place}more.npy").unlink()
    np.savez(folder / f"in/{place}more.npz", labels=np.zeros(3), images=np.zeros((4, 8, 8, 3), np.uint8))
    refused(folder / "in", r"and 1 file \(.*more\.npz\) of further pictures")
    (folder / f"in/{place}more.npz").unlink()
    (folder / f"in/{place}a.array_record").touch()
    refused(folder / "in", r"and 1 file \(.*a\.array_record\) of further pictures")


def test_tables_among_pictures(folder: Path):
    (folder / "in/metadata.csv").write_text("file_name,label\n0.png,1\n1.png,2\n")
    (folder / "in/labels.csv").write_text("image,label\ndeep/0.png,1\nelse,2\n")
    pq.write_table(pa.table({"path": ["2.png"], "score": [1.0]}), folder / "in/scores.parquet")
    (folder / "in/broken.parquet").write_bytes(b"PAR1")
    source = open_source(folder / "in")
    assert (len(source.keys), source.left_out) == (3, 4)
    (folder / "in/list.csv").write_text("path\n../a.png\n../b.png\n")
    refused(folder / "in", r"and 1 file \(list\.csv\) of further pictures")
    (folder / "in/list.csv").unlink()
    pq.write_table(pa.table({"image": [{"bytes": picture(), "path": "0.png"}]}), folder / "in/set.parquet")
    refused(folder / "in", r"and 1 file \(set\.parquet\) of further pictures")


def test_a_folder_that_holds_a_list_and_no_picture(folder: Path):
    (folder / "lists").mkdir()
    (folder / "lists/a.csv").write_text("path\n../in/0.png\n")
    refused(folder / "lists", r"holds no image \(1 other files\).* Is a\.csv meant\? Then name that file\.$")


def test_archives_in_folders_of_a_folder_are_all_read(tmp_path: Path):
    write_tar(tmp_path / "train/0.tar", {"a.png": picture(), "a.json": b""})
    write_tar(tmp_path / "test/0.tar", {"a.png": picture()})
    (tmp_path / "0.parquet").write_bytes(b"what img2dataset writes beside a tar")
    source = open_source(tmp_path)
    assert list(source.keys) == ["test/0.tar/a", "train/0.tar/a"]
    assert source.left_out == 2
    for pattern in ("*/0.tar", "**/*.tar", "t*/?.tar"):
        assert list(open_source(f"{tmp_path}/{pattern}").keys) == list(source.keys)
    (tmp_path / "link").symlink_to(tmp_path / "train", target_is_directory=True)
    assert list(open_source(tmp_path).keys) == [*source.keys, "link"]


def test_compressed_archives_are_not_passed_over(folder: Path):
    (folder / "in/1.tar.gz").touch()
    refused(folder / "in", r"and 1 file \(1\.tar\.gz\) of further pictures")
    write_tar(folder / "tars/0.tar", {"a.png": picture()})
    (folder / "tars/1.tar.gz").touch()
    refused(folder / "tars", r"compressed, such as 1\.tar\.gz, and others that are not, such as 0\.tar: decompress")
    (folder / "tars/0.tar").unlink()
    refused(folder / "tars", r"holds no image .* Is 1\.tar\.gz meant\?")


def test_archives_of_two_kinds(tmp_path: Path):
    write_tar(tmp_path / "0.tar", {"a.png": picture()})
    (tmp_path / "0.array_record").touch()
    refused(tmp_path, r"holds files of several kinds, .*0\.tar and .*0\.array_record; give one of them")


def test_patterns_that_count_too_far(tmp_path: Path):
    refused(tmp_path / "{0..999999999999}.tar", "at most a million")
    refused(tmp_path / "{5..1}.tar", "counts from 5 to 1")


def test_a_pattern_below_a_folder_whose_name_looks_like_one(tmp_path: Path):
    write_tar(tmp_path / "a[1]/0.tar", {"a.png": picture()})
    assert list(open_source(f"{tmp_path}/a[1]/*.tar").keys) == ["a"]


# Samples of several pictures


def test_a_picture_and_its_mask(tmp_path: Path):
    members = {"0.jpg": picture(1), "0.mask.png": picture(2), "0.json": b"", "1.jpg": picture(3), "1.mask.png": b"-"}
    tar = write_tar(tmp_path / "a.tar", members)
    message = refused(tar, "the sample '0' in .* holds 2 pictures, 0.jpg and 0.mask.png. Say which one is scored")
    assert f"'{tar}::jpg', or '{tar}::*' for each" in message
    source = open_source(f"{tar}::jpg")
    assert (list(source.keys), source.left_out) == (["0", "1"], 3)
    assert [source.read(i) for i in range(2)] == [picture(1), picture(3)]
    assert open_source(f"{tar}::mask.png").read(0) == picture(2)
    assert list(open_source(f"{tar}::*").keys) == ["0.jpg", "0.mask.png", "1.jpg", "1.mask.png"]
    assert name_in_full(source.name) == f"{tar}::jpg"
    write_tar(tmp_path / "b.tar", members)
    for several in (f"{tmp_path}::jpg", f"{tmp_path}/*.tar::jpg"):
        assert list(open_source(several).keys) == ["a.tar/0", "a.tar/1", "b.tar/0", "b.tar/1"]


def test_the_first_ending_that_is_there_and_a_sample_without_any(tmp_path: Path):
    members = {"0.jpg": picture(1), "0.png": picture(2), "1.png": picture(3), "2.webp": picture(4), "3.txt": b""}
    tar = write_tar(tmp_path / "a.tar", members)
    source = open_source(f"{tar}::jpg;png")
    assert list(source.keys) == ["0", "1", "2"]
    assert [source.read(i) for i in range(2)] == [picture(1), picture(3)]
    with pytest.raises(ImageError, match=r"no picture of this sample ends in \.jpg;png: it holds 2\.webp"):
        source.read(2)


def test_an_ending_that_is_no_pictures_own(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {"0.img": picture(1), "0.cls": b"3"})
    refused(tar, "holds no image")
    assert open_source(f"{tar}::img").read(0) == picture(1)


def test_a_part_of_what_has_none(folder: Path):
    refused(f"{folder}/in::jpg", "a folder of images has no parts; leave out ::jpg")
    refused(f"{folder}/in::", "or neither")
    (folder / "in::jpg").mkdir()
    (folder / "in::jpg/a.png").write_bytes(picture())
    assert list(open_source(f"{folder}/in::jpg").keys) == ["a.png"]


# Arrays


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((40, 30), r"it is one picture \[H, W\]; write array\[None\]"),
        ((40, 30, 3), r"one picture \[H, W, 3\], or 40 grey ones of width 3; write array\[None\] for the one"),
        ((40, 30, 4), r"one picture \[H, W, 4\], or 40 grey ones of width 4"),
        ((40, 30, 1), r"one picture \[H, W, 1\], or 40 grey ones of width 1"),
        ((3, 40, 30), r"one picture \[3, H, W\] with its channels first, or 3 grey ones"),
        ((5, 3, 40, 30), r"channels come first; write array\.transpose\(0, 2, 3, 1\)"),
        ((32, 32, 3, 50), "its last axis must be the channels"),
    ],
)
def test_an_array_that_is_no_sure_batch(shape: tuple[int, ...], message: str, tmp_path: Path):
    array = np.zeros(shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", message)
    np.savez_compressed(tmp_path / "a.npz", images=array)
    refused(tmp_path / "a.npz", message)
    with pytest.raises(jj.ArgumentError, match=message):
        tiny_encoder().preprocess(array)


def test_the_remedies_are_remedies(tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    encoder = tiny_encoder()
    with pytest.raises(jj.ArgumentError, match=r"one picture and no sequence of them; write \[image\]"):
        encoder.preprocess(Image.fromarray(array))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(encoder.preprocess(array[None]), encoder.preprocess([array]))
    np.save(tmp_path / "a.npy", array[None])
    np.testing.assert_array_equal(open_source(tmp_path / "a.npy").read(0), array)
    np.save(tmp_path / "a.npy", array[..., None])
    np.testing.assert_array_equal(open_source(tmp_path / "a.npy").read(39), array[39, :, :, None])
    np.save(tmp_path / "a.npy", array.transpose(2, 0, 1)[:2])  # two grey pictures are nothing else
    assert len(open_source(tmp_path / "a.npy").keys) == 2


def test_which_array_of_several(tmp_path: Path):
    sets = {"x_train": np.zeros((3, 8, 8), np.uint8), "x_test": np.ones((2, 8, 8), np.uint8)}
    np.savez(tmp_path / "a.npz", x_train=sets["x_train"], x_test=sets["x_test"])
    refused(tmp_path / "a.npz", r"none is called 'images'; say which one is meant: .*a\.npz::x_train\.$")
    source = open_source(f"{tmp_path}/a.npz::x_test")
    assert len(source.keys) == 2
    np.testing.assert_array_equal(source.read(0), sets["x_test"][0])
    refused(f"{tmp_path}/a.npz::y", "holds 0 arrays called 'y'")
    np.savez(tmp_path / "a.npz", images=sets["x_train"], x=sets["x_test"])
    refused(tmp_path / "a.npz", "arrays called images and x; say which one")


def test_two_arrays_in_one_file(tmp_path: Path):
    with (tmp_path / "a.npy").open("wb") as stream:
        for _ in range(2):
            np.save(stream, np.zeros((2, 8, 8), np.uint8))
    refused(tmp_path / "a.npy", r"bytes follow the array of \(2, 8, 8\), which would be left out")


# TFDS


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
    write_records(epath.Path(tmp_path), begun)
    with pytest.raises(JobError, match=r"belongs to another job .*new output directory"):
        pin_records(epath.Path(tmp_path), source, keys_digest(begun.keys), write=False)


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


# Any list

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
SAFE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0;\t|\n\r"), min_size=1, max_size=20)


def written(rows: list[list[str]], separator: str = ",") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator).writerows(rows)
    return stream.getvalue()


@given(paths=st.lists(TEXT, min_size=1), keys=st.lists(TEXT, min_size=1), separator=st.sampled_from(",;\t|"))
def test_no_row_of_a_table_vanishes(paths: list[str], keys: list[str], separator: str):
    rows = [list(row) for row in zip(paths, keys, strict=False)]
    with tempfile.TemporaryDirectory() as folder:
        file = epath.Path(folder) / "list.csv"
        file.write_bytes(written([["path", "key"], *rows], separator).encode())
        names, columns = read_csv(file, PATH_COLUMNS)
        assert (names, [list(row) for row in zip(*columns, strict=True)]) == (["path", "key"], rows)
        file.write_bytes(written([["path"], *([path] for path in paths)]).encode())
        assert read_csv(file, PATH_COLUMNS) == (["path"], [tuple(paths)])


@given(paths=st.lists(SAFE.map("{}a.png".format), min_size=1))
def test_no_row_of_a_list_without_a_header_vanishes(paths: list[str]):
    with tempfile.TemporaryDirectory() as folder:
        file = epath.Path(folder) / "list.csv"
        file.write_bytes(written([[path] for path in paths]).encode())
        assert read_csv(file, PATH_COLUMNS) == (["path"], [tuple(paths)])
