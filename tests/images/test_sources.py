"""Every kind of input: the same photographs give the same scores under keys that map to each other."""

import io
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_shared import Silent, failures, table, tiny_encoder
from PIL import Image
from small_inputs import write_tar

import jepa_jax as jj
from jepa_jax.images import Records, open_source
from jepa_jax.images.sources import opening
from jepa_jax.images.sources.kind import SourceKind
from jepa_jax.images.sources.records import identity
from jepa_jax.jobs import JobOptions, run_job

PHOTOGRAPHS = ("astronaut.png", "camera.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs that scikit-image bundles, as JPEG and PNG files in two folders."""
    skimage = pytest.importorskip("skimage")
    bundled = Path(skimage.__file__).parent / "data"
    names = [name for name in PHOTOGRAPHS if (bundled / name).exists()]
    assert len(names) >= 3
    root = tmp_path_factory.mktemp("photographs")
    for i, name in enumerate(names):
        target = root / f"set{i % 2}" / name
        target.parent.mkdir(exist_ok=True)
        with Image.open(bundled / name) as picture:
            picture.convert("RGB").resize((96, 80)).save(target)
    return root


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Key to score of the folder's job."""
    return scores(open_source(folder), tmp_path_factory.mktemp("folder"), workers=0)


def scores(source: Records, output: Path, workers: int = 1) -> dict[str, float]:
    run_job(tiny_encoder(), source, output, Silent(), JobOptions(batch_size=4, workers=workers))
    assert failures(output) == {}
    rows = table(output)
    return dict(zip(rows["key"].to_pylist(), rows["score"].to_pylist(), strict=True))


def files(folder: Path) -> dict[str, bytes]:
    """Contents by key, in the folder source's order."""
    source = open_source(folder)
    contents = zip(source.keys, map(source.reader, source.locators), strict=True)
    return {key: content for key, content in contents if isinstance(content, bytes)}


def test_a_tar_scores_as_its_folder(folder: Path, expected: dict[str, float], tmp_path: Path):
    members = {}
    for key, content in files(folder).items():
        members |= {key: content, key.rsplit(".", 1)[0] + ".json": b"{}"}
    source = open_source(write_tar(tmp_path / "all.tar", members))
    assert source.left_out == len(expected)
    assert scores(source, tmp_path / "out") == {key.rsplit(".", 1)[0]: score for key, score in expected.items()}


def test_several_tars_stand_in_the_keys(folder: Path, expected: dict[str, float], tmp_path: Path):
    contents = list(files(folder).items())
    for i in range(2):
        write_tar(tmp_path / f"shard-{i:02d}.tar", dict(contents[i::2]))
    keys = [f"shard-{i:02d}.tar/{key.rsplit('.', 1)[0]}" for i in range(2) for key, _ in contents[i::2]]
    for name in (str(tmp_path / "shard-{00..01}.tar"), str(tmp_path / "shard-*.tar"), str(tmp_path)):
        assert open_source(name).keys == keys
    found = scores(open_source(tmp_path), tmp_path / "out")
    assert sorted(found.values()) == sorted(expected.values())


def test_several_pictures_of_one_sample_keep_their_endings(tmp_path: Path):
    picture = b"never read here"
    tar = write_tar(
        tmp_path / "a.tar", {"0.left.jpg": picture, "0.right.jpg": picture, "0.txt": b"", "1.jpg": picture}
    )
    assert open_source(f"{tar}::*").keys == ["0.left.jpg", "0.right.jpg", "1"]


def test_an_array_record_scores_as_the_folder(folder: Path, expected: dict[str, float], tmp_path: Path):
    module = pytest.importorskip("array_record.python.array_record_module")

    def write(contents: Iterable[bytes]) -> Path:
        path = tmp_path / "photographs.array_record"
        path.unlink(missing_ok=True)
        writer = module.ArrayRecordWriter(str(path), "group_size:1")
        for content in contents:
            writer.write(content)
        writer.close()
        return path

    found = scores(open_source(write(files(folder).values())), tmp_path / "out")
    assert found == {str(i): score for i, score in enumerate(expected.values())}
    # Another file of the same name, read by the same process.
    contents = list(files(folder).values())
    source = open_source(write([*reversed(contents), contents[0]]))
    assert [source.read(i) for i in range(len(source.keys))] == [*reversed(contents), contents[0]]


def test_a_tfds_data_set_scores_as_the_folder(folder: Path, expected: dict[str, float], tmp_path: Path):
    tfds = pytest.importorskip("tensorflow_datasets")
    contents = files(folder)

    class Photographs(tfds.core.GeneratorBasedBuilder):
        """The folder as a data set."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(), "file_name": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for key, content in contents.items():
                yield key, {"image": io.BytesIO(content), "file_name": key}

    builder = Photographs(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    source = open_source(f"tfds:{builder.data_dir}/train")
    # TFDS shuffles what it writes; its own records say which is which.
    names = [record["file_name"].decode() for record in builder.as_data_source(split="train")]
    assert sorted(names) == sorted(expected)
    found = scores(source, tmp_path / "out")
    assert found == {str(i): expected[name] for i, name in enumerate(names)}
    assert len(open_source(f"tfds:{builder.data_dir}/train[:2]").keys) == 2
    with pytest.raises(jj.ArgumentError, match="cannot be opened"):
        open_source(f"tfds:{builder.data_dir}/nowhere")
    with pytest.raises(jj.ArgumentError, match="give the split as well"):
        open_source(builder.data_dir)


def test_a_list_of_paths_scores_as_the_folder(folder: Path, expected: dict[str, float], tmp_path: Path):
    absolute = [str(folder / key) for key in expected]
    pq.write_table(pa.table({"label": range(len(absolute)), "path": absolute}), tmp_path / "list.parquet")
    found = scores(open_source(tmp_path / "list.parquet"), tmp_path / "out")
    assert found == {str(folder / key): score for key, score in expected.items()}
    rows = [f"{key},photo {i}" for i, key in enumerate(expected)]
    (folder / "list.csv").write_text("\n".join(["file_name,key", *rows]) + "\n")
    found = scores(open_source(folder / "list.csv"), tmp_path / "csv")
    (folder / "list.csv").unlink()
    assert found == {f"photo {i}": score for i, score in enumerate(expected.values())}


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_score_as_their_pictures(suffix: str, folder: Path, expected: dict[str, float], tmp_path: Path):
    opened = [Image.open(io.BytesIO(content)).convert("RGB") for content in files(folder).values()]
    pictures = np.stack([np.asarray(picture) for picture in opened])
    path = tmp_path / f"pictures.{suffix}"
    np.save(path, pictures) if suffix == "npy" else np.savez(path, images=pictures, labels=np.arange(len(pictures)))
    found = scores(open_source(path), tmp_path / "out")
    assert found == {str(i): score for i, score in enumerate(expected.values())}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar.gz", b"", "Decompress it first"),
        ("a.tar", b"no archive", "no tar archive"),
        ("a.md", b"", "no known kind"),
        ("a.csv", b"x,y\n1,2\n", "none is called path"),
        ("a.csv", b"path\nna\xefve.png\n", "cannot be read as a list"),
        ("a.csv", b"path,label\na.png\n", "the first row has 2 columns, and 'a.png' has 1"),
        ("a.csv", b"path,label\n", "lists no path"),
        ("a.csv", b"", "is empty: it has no columns"),
        ("a.npy", b"", "cannot be read as a NumPy array"),
        ("a.NPY", b"", "cannot be read as a NumPy array"),
        ("a.npz", b"PK\x03\x04 cut", "cannot be read as a NumPy array"),
        ("a.array_record", b"nothing", "cannot be read as ArrayRecord"),
    ],
)
def test_what_cannot_be_scored_is_named(name: str, content: bytes, message: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(jj.ArgumentError, match=message):
        open_source(tmp_path / name)


def test_keys_of_a_list_are_text_even_where_they_look_like_numbers(tmp_path: Path):
    (tmp_path / "list.csv").write_text("key,path\n01,07.png\n1,7.png\n0010,1e3.png\n")
    source = open_source(tmp_path / "list.csv")
    assert list(source.keys) == ["01", "1", "0010"]
    assert [Path(path).name for path in source.locators] == ["07.png", "7.png", "1e3.png"]
    pq.write_table(pa.table({"image": [{"byte": b"", "path": "a"}]}), tmp_path / "list.parquet")
    with pytest.raises(jj.ArgumentError, match="must be text"):
        open_source(tmp_path / "list.parquet")


def test_float_arrays_are_refused(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3)))
    with pytest.raises(jj.ArgumentError, match="float64"):
        open_source(tmp_path / "a.npy")
    with pytest.raises(jj.ArgumentError, match="matches no file"):
        open_source(tmp_path / "*.tar")
    with pytest.raises(jj.ArgumentError, match="tfds:NAME/SPLIT"):
        open_source("tfds:mnist")


def test_a_new_kind_is_one_object_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def read(name: str, files: Sequence[str]) -> Records:
        return Records(name, ["0"], [b""], identity, tuple(files))

    kind = SourceKind("a .zip of nothing", read, prefix="nothing:", is_file=lambda name: name.endswith(".zip"))
    monkeypatch.setattr(opening, "KINDS", (*opening.KINDS, kind))
    (tmp_path / "a.zip").touch()
    assert open_source(tmp_path / "a.zip").files == (str(tmp_path / "a.zip"),)
    assert open_source("nothing:else").name == opening.name_in_full("nothing:else") == "nothing:else"
    with pytest.raises(
        jj.ArgumentError,
        match=r"give an image or a pattern of images, .*/\.npz arrays, .* of videos, or a \.zip of nothing",
    ):
        open_source(tmp_path / "nowhere")
    # One file, named by a pattern: this kind takes no several.
    assert open_source(tmp_path / "?.zip").files == (str(tmp_path / "a.zip"),)
    (tmp_path / "b.zip").touch()
    with pytest.raises(jj.ArgumentError, match="no known kind"):
        open_source(tmp_path / "?.zip")


def test_a_kind_that_needs_a_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("array_record", "tensorflow_datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.array_record").touch()
    remedy = r"need the package {}: pip install 'jepa-jax\[data\]'\.$"
    with pytest.raises(jj.ArgumentError, match="^ArrayRecord files " + remedy.format("array_record")):
        open_source(tmp_path / "a.array_record")
    with pytest.raises(jj.ArgumentError, match="^TFDS data sets " + remedy.format("tensorflow_datasets")):
        open_source("tfds:mnist/test")


def test_videos_need_a_package_and_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.txt").write_text("a.mp4\n")
    for given in (tmp_path, tmp_path / "list.txt"):
        with pytest.raises(jj.ArgumentError, match=r"videos need the package av: pip install 'jepa-jax\[video\]'\.$"):
            open_source(given / "a.mp4" if given == tmp_path else given)


def test_messages_name_every_kind(tmp_path: Path):
    kinds = (
        "an image or a pattern of images, a folder of images, .tar (WebDataset), .array_record, a folder of datasets' "
        "save_to_disk, tfds:NAME/SPLIT, tfds:DIR/SPLIT, .parquet tables of images, a .parquet, .csv, .jsonl or .txt "
        "list of paths, .npy/.npz arrays, or a folder or a pattern of videos"
    )
    with pytest.raises(jj.ArgumentError, match=re.escape(f"does not exist; give {kinds}.")):
        open_source(tmp_path / "nowhere")
