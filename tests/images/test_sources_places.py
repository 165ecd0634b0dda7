"""Where a record's picture is: of every kind of input, the text alone leads back to the picture."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_inputs import listed, picture, write_tar

import jepa_jax as jj
from jepa_jax.errors import ImageError
from jepa_jax.images import Records, open_source, open_sources


def places(source: Records) -> list[str | None]:
    return [source.place(i) for i in range(len(source.keys))]


def test_files_are_named_in_full(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    expected = [f"{folder}/in/{i}.png" for i in range(3)]
    assert places(open_source("in")) == places(open_source("in/*.png")) == expected
    assert [Path(str(place)).read_bytes() for place in expected] == [picture(i) for i in range(3)]
    lines = f"in/2.png\nhttps://a.example/0.png\nfile://{folder}/in/1.png\n\n"
    assert places(listed(folder / "list.txt", lines)) == [
        expected[2],
        "https://a.example/0.png",
        expected[1],
        None,
    ]
    source = open_source("in").only(["2.png", "gone.png", "0.png"])
    assert places(source) == [expected[2], None, expected[0]]


def test_names_that_are_no_text_have_no_place(tmp_path: Path):
    (tmp_path / "in").mkdir()
    name = b"\xff.png".decode("utf-8", "surrogateescape")
    (tmp_path / "in" / name).write_bytes(picture())
    assert places(open_source(tmp_path / "in")) == [None]
    assert places(open_source(write_tar(tmp_path / "a.tar", {name: picture(), "b.png": picture()}))) == [
        None,
        f"{tmp_path}/a.tar::b.png",
    ]


def test_members_of_archives(tmp_path: Path):
    deep = "deep/" * 30 + "0.left.png"
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", {deep: picture(1), "::1.png": picture(2), "1.txt": b""})
    found = places(open_source(tmp_path))
    assert found == [f"{tmp_path}/{name}.tar::{member}" for name in "ab" for member in (deep, "::1.png")]
    archive, _, member = str(found[1]).partition("::")
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(member)
        assert stream is not None
        assert stream.read() == picture(2)


def test_rows_of_arrays(tmp_path: Path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)
    np.save(tmp_path / "c.npy", pictures)
    np.save(tmp_path / "f.npy", np.asfortranarray(pictures))
    np.savez(tmp_path / "a.npz", images=pictures, labels=np.arange(3))
    for name in ("c.npy", "f.npy", "a.npz"):
        source = open_source(tmp_path / name)
        array = "images::" if name == "a.npz" else ""
        assert places(source) == [f"{tmp_path}/{name}::{array}{row}" for row in range(3)]
        for index in (2, 0):
            row = int(str(source.place(index)).rpartition("::")[2])
            np.testing.assert_array_equal(source.read(index), pictures[row])


def test_records_of_array_record(tmp_path: Path):
    module = pytest.importorskip("array_record.python.array_record_module")
    for name, reds in (("a", range(2)), ("b", range(2, 5))):
        writer = module.ArrayRecordWriter(str(tmp_path / f"{name}.array_record"), "group_size:1")
        for red in reds:
            writer.write(picture(red))
        writer.close()
    source = open_source(f"{tmp_path}/*.array_record")
    for index, place in enumerate(places(source)):
        file, _, number = str(place).rpartition("::")
        assert open_source(file).read(int(number)) == source.read(index) == picture(index)


def test_records_of_tfds(tmp_path: Path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Places(tfds.core.GeneratorBasedBuilder):
        """Two splits."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"image": tfds.features.Image()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(range(4)), "test": self._generate_examples(range(4, 7))}

        def _generate_examples(self, reds: range):
            for red in reds:
                yield str(red), {"image": io.BytesIO(picture(red))}

    builder = Places(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    source = open_source(f"tfds:{builder.data_dir}/train[2:]+test[1:]")
    expected = [("train", 2), ("train", 3), ("test", 1), ("test", 2)]
    assert places(source) == [f"tfds:{builder.data_dir}/{split}::{number}" for split, number in expected]
    for index, place in enumerate(places(source)):
        name, _, number = str(place).rpartition("::")
        assert open_source(name).read(int(number)) == source.read(index)


# Several inputs


def test_several_inputs_are_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    write_tar(folder / "more/in.tar", {"a.png": picture(7), "../b.png": picture()})
    pq.write_table(pa.table({"image": [picture(8)]}), folder / "t.parquet")
    source = open_sources(["in", "more/in.tar", "t.parquet"])
    assert list(source.keys) == [
        "in/0.png",
        "in/1.png",
        "in/2.png",
        "in.tar/a",
        "in.tar/../b",
        "t.parquet/0",
    ]
    assert [source.read(i) for i in (0, 2, 3, 5)] == [picture(0), picture(2), picture(7), picture(8)]
    with pytest.raises(ImageError, match="leads out of the archive"):
        source.read(4)
    assert [source.path(i) for i in (1, 3)] == [f"{folder}/in/1.png", None]
    here = f"{folder}/in + {folder}/more/in.tar + {folder}/t.parquet"
    assert source.name == here
    expected = places(source)
    monkeypatch.chdir("/")
    again = open_source(here)
    assert list(again.keys) == list(source.keys)
    assert places(again) == expected
    assert again.place(3) == f"{folder}/more/in.tar::a.png"
    some = again.some(2, 0)
    assert [some.read(i) for i in range(2)] == [again.read(source.keys.index(key)) for key in some.keys]


def test_images_that_a_shell_has_named_are_those_of_the_pattern(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    source, pattern = open_sources(["in/0.png", "in/1.png", "in/2.png"]), open_source("in/*.png")
    assert (list(source.keys), places(source)) == (list(pattern.keys), places(pattern))
    assert list(open_source(source.name).keys) == list(source.keys)
    many = [folder / f"in/{i}.png" for i in range(3)] + [folder / "in"]
    assert open_sources(many).keys[0] == "0.png"


def test_inputs_of_the_same_name_are_told_apart(folder: Path):
    (folder / "b/in").mkdir(parents=True)
    (folder / "b/in/0.png").write_bytes(picture(9))
    source = open_sources([folder / "in", folder / "b/in"])
    assert (source.keys[0], source.keys[3]) == (f"{folder.name}/in/0.png", "b/in/0.png")
    np.savez(folder / "s.npz", a=np.zeros((2, 8, 8), np.uint8), b=np.ones((1, 8, 8), np.uint8))
    source = open_sources([f"{folder}/s.npz::a", f"{folder}/s.npz::b"])
    assert list(source.keys) == ["s.npz::a/0", "s.npz::a/1", "s.npz::b/0"]


def test_inputs_that_cannot_be_one(folder: Path):
    with pytest.raises(jj.ArgumentError, match=r"in is given twice; give each input once\.$"):
        open_sources([folder / "in", f"{folder}/in/"])
    (folder / "a + b").mkdir()
    (folder / "a + b/0.png").write_bytes(picture(9))
    assert open_source(folder / "a + b").read(0) == picture(9)
    with pytest.raises(jj.ArgumentError, match="in its name, which stands between inputs"):
        open_sources([folder / "in", folder / "a + b"])
    with pytest.raises(jj.ArgumentError, match="nowhere does not exist"):
        open_sources([folder / "in", folder / "nowhere"])


def test_a_column_is_a_part(folder: Path):
    (folder / "list.csv").write_text("path,image\nin/0.png,in/1.png\n")
    (source, named) = (open_sources([folder / "list.csv"], "image"), open_source(f"{folder}/list.csv::image"))
    assert (source.name, source.read(0)) == (named.name, picture(1))
    with pytest.raises(jj.ArgumentError, match=r"in::image: .*has no columns or other parts; leave out ::image\.$"):
        open_sources([folder / "in"], "image")
    with pytest.raises(jj.ArgumentError, match="both say what is meant of it; give one"):
        open_sources([f"{folder}/list.csv::image"], "path")
