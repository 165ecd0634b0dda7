"""What could be read in two ways is refused before work begins, with both named; nothing vanishes without a word."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_shared import tiny_encoder
from PIL import Image
from small_inputs import picture, refused, write_tar

import jepa_jax as jj
from jepa_jax.errors import ImageError
from jepa_jax.images import open_source
from jepa_jax.images.sources import name_in_full

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
    refused(f"{folder}/in::jpg", "a folder of images has no columns or other parts; leave out ::jpg")
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
    encoder = tiny_encoder()
    if array.ndim == 2 or array.shape[-1] in (1, 3, 4):  # handed over in Python it is one picture, and nothing else
        np.testing.assert_array_equal(encoder.preprocess(array), encoder.preprocess(array[None]))
        return
    with pytest.raises(jj.ArgumentError, match=message):
        encoder.preprocess(array)


@pytest.mark.parametrize("shape", [(3, 40, 3), (1, 40, 3), (4, 40, 4), (3, 40, 30), (4, 40, 30), (2, 3, 40, 30)])
def test_preprocess_refuses_what_it_would_misread(shape: tuple[int, ...]):
    with pytest.raises(jj.ArgumentError, match=r"images is an array of shape .*(channels|one picture)"):
        tiny_encoder().preprocess(np.zeros(shape, np.uint8))


def test_preprocess_takes_one_or_many():
    encoder = tiny_encoder()
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (40, 30, 3), np.uint8)
    one = encoder.preprocess([array])
    assert one.shape[0] == 1
    for same in (array, jnp.asarray(array), Image.fromarray(array), (array,), [jnp.asarray(array)], array[None]):
        np.testing.assert_array_equal(encoder.preprocess(same), one)  # pyright: ignore[reportArgumentType]
    grey = rng.integers(0, 256, (5, 40, 30), np.uint8)
    np.testing.assert_array_equal(encoder.preprocess(grey), encoder.preprocess(list(grey)))
    np.testing.assert_array_equal(encoder.preprocess(grey[0]), encoder.preprocess([grey[0]]))
    for path in ("a.jpg", Path("a.jpg"), b"\x89PNG"):
        with pytest.raises(jj.ArgumentError, match=r"no picture: open it with PIL\.Image\.open"):
            encoder.preprocess(path)  # pyright: ignore[reportArgumentType]
    for nothing, called in ((None, "None"), (np.ma.masked_array(array, array > 9), "a masked array")):
        with pytest.raises(jj.ArgumentError, match=f"images is {called}.*; pass pictures"):
            encoder.preprocess(nothing)  # pyright: ignore[reportArgumentType]
    with pytest.raises(jj.ImageError, match=r"images\[0\]: .* float32; pass uint8"):
        encoder.preprocess(one)


def test_the_remedies_are_remedies(tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    encoder = tiny_encoder()
    np.testing.assert_array_equal(encoder.preprocess(Image.fromarray(array)), encoder.preprocess([array]))
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
