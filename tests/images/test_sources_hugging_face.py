"""Hugging Face's data sets, as Parquet and as `save_to_disk` leaves them, against what `datasets` itself reads."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_shared import Silent, failures, table, tiny_encoder
from PIL import Image
from small_inputs import picture, refused, write_tar

from jepa_jax.errors import ImageError
from jepa_jax.images import InputRecipe, PreprocessSpec, Records, open_source
from jepa_jax.images.reasons import of_the_machine
from jepa_jax.images.sources import name_in_full, picture_tables, rows_read_ahead
from jepa_jax.images.worker import Worker
from jepa_jax.jobs import JobOptions, run_job

if TYPE_CHECKING:
    from dataset_hub import DatasetHub

pytest_plugins = ["dataset_hub"]  # the fixture


def contents(source: Records) -> list[bytes]:
    """All pictures, as a worker process would read them."""
    reader = pickle.loads(pickle.dumps(source.reader))
    return [bytes(reader(source.locators[i])) for i in range(len(source.keys))]


def led_back(place: str | None) -> bytes:
    """The picture in a table, by its place alone."""
    file, _, row = str(place).rpartition("::")
    if file.endswith(".parquet"):
        read = pq.read_table(file)
    else:
        with pa.memory_map(file) as stream:
            read = pa.ipc.open_stream(stream).read_all()
    cell = read["image"][int(row)].as_py()
    return cell["bytes"] or Path(cell["path"]).read_bytes()


def embedded(path: Path, reds: range | list[int], **columns: list[Any]) -> Path:
    """A table of pictures as `datasets` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": picture(red), "path": f"{red}.png"} for red in reds]
    pq.write_table(pa.table({"image": cells, **columns}), path, row_group_size=2)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Twelve pictures of several formats in another order than they were made in, and where they are saved."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("hugging-face")
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (10 + i, 12, 3), np.uint8)) for i in range(8)]
    files = []
    for i, suffix in enumerate(("jpg", "png", "webp", "bmp")):
        pictures[i].save(folder / f"{i}.{suffix}")
        files.append(str(folder / f"{i}.{suffix}"))
    features = datasets.Features({"label": datasets.Value("int64"), "image": datasets.Image()})
    made = datasets.Dataset.from_dict({"label": list(range(12)), "image": files + pictures}, features=features)
    made = made.select([7, 3, 11, 0, 1, 2, 4, 5, 6, 8, 9, 10])
    made.to_parquet(folder / "one.parquet", batch_size=5)
    for i in range(3):
        made.shard(3, i).to_parquet(folder / f"parts/data/train-0000{i}-of-00003.parquet")
    made.save_to_disk(folder / "saved", num_shards=3)
    halves = {"train": made.select(range(6)), "test": made.select(range(6, 12))}
    datasets.DatasetDict(halves).save_to_disk(folder / "splits")
    return made, folder


def same_pixels(source: Records, expected: Any) -> None:
    """Whether an input holds the same pictures in the same order as a data set."""
    found = contents(source)
    assert len(found) == len(expected)
    for i, (content, row) in enumerate(zip(found, expected, strict=True)):
        with Image.open(io.BytesIO(content)) as opened:
            np.testing.assert_array_equal(np.asarray(opened), np.asarray(row["image"]))
        assert led_back(source.place(i)) == content


def test_parquet_reads_as_datasets_reads_it(written: tuple[Any, Path]):
    datasets = pytest.importorskip("datasets")
    made, folder = written
    source = open_source(folder / "one.parquet")
    assert list(source.keys) == [f"one.parquet/{row}" for row in range(12)]
    loaded = datasets.load_dataset("parquet", data_files=str(folder / "one.parquet"), split="train")
    assert loaded["label"] == made["label"]
    same_pixels(source, loaded)
    for name in (folder / "parts", folder / "parts/data"):
        source = open_source(name)
        below = "data/" if name.name == "parts" else ""
        assert source.keys[4] == f"{below}train-00001-of-00003.parquet/0"
        same_pixels(source, datasets.load_dataset("parquet", data_dir=str(folder / "parts/data"), split="train"))
    assert list(open_source(f"{folder}/parts/*/train-*.parquet").keys) == list(source.keys)


def test_a_saved_data_set_reads_as_datasets_reads_it(written: tuple[Any, Path]):
    datasets = pytest.importorskip("datasets")
    _, folder = written
    source = open_source(folder / "saved")
    assert list(source.keys) == [str(row) for row in range(12)]
    same_pixels(source, datasets.load_from_disk(folder / "saved"))
    refused(folder / "splits", rf"holds the splits train, test; say which one is meant: {folder}/splits::train, with")
    loaded = datasets.load_from_disk(folder / "splits")
    for name in (f"{folder}/splits::test", f"{folder}/splits/test", f"{folder}/splits/test::image"):
        same_pixels(open_source(name), loaded["test"])
    assert name_in_full(open_source(f"{folder}/splits::test").name) == f"{folder}/splits::test"
    refused(f"{folder}/splits/test::label", "has no pictures in a column 'label'; its columns are label, image")


def test_a_job_scores_them_all_the_same(written: tuple[Any, Path], tmp_path: Path):
    _, folder = written
    scores = []
    for name in ("one.parquet", "parts", "saved"):
        options = JobOptions(batch_size=4, workers=1)
        run_job(tiny_encoder(), open_source(folder / name), tmp_path / name, Silent(), options)
        assert failures(tmp_path / name) == {}
        scores.append(table(tmp_path / name)["score"].to_pylist())
    assert scores[0] == scores[1] == scores[2]
    assert len(scores[0]) == 12


# Columns


def test_which_column_holds_the_pictures(tmp_path: Path):
    path = tmp_path / "a.parquet"
    two = {"image": [picture(1)], "thumb": [picture(2)], "label": [3]}
    pq.write_table(pa.table(two), path)
    assert contents(open_source(path)) == [picture(1)]
    assert contents(open_source(f"{path}::thumb")) == [picture(2)]
    pq.write_table(pa.table({"left": [picture(1)], "right": [picture(2)]}), path)
    refused(path, rf"columns left and right, and each could hold the pictures; say which one: {path}::left\.$")
    pq.write_table(pa.table({"blob": [picture(4)], "label": [0]}), path)
    assert contents(open_source(path)) == [picture(4)]
    (tmp_path / "b.png").write_bytes(picture(5))
    pq.write_table(pa.table({"image": [picture(1)], "file_name": ["b.png"]}), path)
    refused(path, rf"could list some by paths in 'file_name'; say which are meant: {path}::image or {path}::file_name")
    assert contents(open_source(f"{path}::image")) == [picture(1)]
    assert contents(open_source(f"{path}::file_name")) == [picture(5)]
    pq.write_table(pa.Table.from_arrays([pa.array([picture(1)])] * 2, ["image", "image"]), path)
    refused(path, "2 columns called 'image'")


def test_sound_is_no_picture_and_arrays_are_none_either(tmp_path: Path):
    path = tmp_path / "a.parquet"
    cell = [{"bytes": b"RIFF", "path": "a.wav"}]
    features = {"audio": {"_type": "Audio"}, "photo": {"_type": "Value", "dtype": "binary"}}
    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(pa.table({"audio": cell, "photo": [picture(1)]}).replace_schema_metadata(told), path)
    assert contents(open_source(path)) == [picture(1)]
    pq.write_table(pa.table({"image": [[[[0, 1, 2]]]]}), path)
    refused(path, r"holds arrays of numbers in its column 'image', and no encoded pictures: save them as uint8")


def test_keys_of_tables(tmp_path: Path):
    one = embedded(tmp_path / "in/0.parquet", range(3), key=["a", None, "a"])
    source = open_source(one)
    assert (list(source.keys), source.positional) == (["a", "0.parquet/1", "a#2"], False)
    with pytest.raises(ImageError, match="duplicate key"):
        source.read(2)
    embedded(tmp_path / "in/1.parquet", range(3, 5), key=["a", "b"])
    keys = ["0.parquet/a", "0.parquet/1", "0.parquet/a#2", "1.parquet/a", "1.parquet/b"]
    assert list(open_source(tmp_path / "in").keys) == keys
    assert open_source(embedded(tmp_path / "n.parquet", [1], key=[7])).keys == ["7"]
    refused(embedded(tmp_path / "n.parquet", [1], key=[1.5]), "column 'key' is of type double; keys must be text")


def test_rows_without_bytes(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/b.png").write_bytes(picture(2))
    cells = [
        {"bytes": picture(1), "path": "no.png"},
        {"bytes": None, "path": "in/b.png"},
        {"bytes": None, "path": None},
        None,
    ]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert [source.read(0), source.read(1)] == [picture(1), picture(2)]
    for row in (2, 3):
        with pytest.raises(ImageError, match="the row has no picture: neither bytes nor a path"):
            source.read(row)
    pq.write_table(pa.table({"image": pa.array([None, picture(3)], pa.large_binary())}), tmp_path / "b.parquet")
    source = open_source(tmp_path / "b.parquet")
    assert source.read(1) == picture(3)
    with pytest.raises(ImageError, match="neither bytes nor a path"):
        source.read(0)


# Folders


def test_tables_among_other_files(tmp_path: Path):
    embedded(tmp_path / "in/0.parquet", range(2))
    pq.write_table(pa.table({"label": [1]}), tmp_path / "in/labels.parquet")
    (tmp_path / "in/README.md").touch()
    source = open_source(tmp_path / "in")
    assert (list(source.keys), source.left_out) == (["0.parquet/0", "0.parquet/1"], 2)
    (tmp_path / "in/1.parquet").write_bytes(b"PAR1 cut")
    refused(tmp_path / "in", r"in/1\.parquet cannot be read: ")
    (tmp_path / "in/1.parquet").unlink()
    write_tar(tmp_path / "in/0.tar", {"a.png": picture()})
    refused(tmp_path / "in", r"files of several kinds, .*0\.tar and .*0\.parquet; give one of them")
    refused(f"{tmp_path}/in/*.parquet", r"labels\.parquet has no column 'image' of pictures")


# In bounded memory, and damaged


def test_rows_of_a_large_group_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows_read_ahead, "KEPT", 300)
    monkeypatch.setattr(picture_tables, "BATCH", 200)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [picture(red) for red in range(40)]}), path)
    source = open_source(path)
    order = [*range(40), *np.random.default_rng(0).permutation(40).tolist()]
    assert [source.read(i) for i in order] == [picture(red) for red in order]


def test_what_is_damaged_is_named_and_the_rest_is_read(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pictures = pa.table({"image": [picture(red) for red in range(6)]})
    pq.write_table(
        pictures,
        path,
        row_group_size=2,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(picture(3)) + 40] ^= 1
    path.write_bytes(damaged)
    source = open_source(path)
    for row in (0, 1, 4, 5):
        assert source.read(row) == picture(row)
    for row in (2, 3, 2):
        with pytest.raises(ImageError, match=r"a\.parquet is damaged in the rows from 2 on: "):
            source.read(row)


def test_a_saved_data_set_that_is_damaged(written: tuple[Any, Path], tmp_path: Path):
    saved = tmp_path / "saved"

    def anew() -> Path:
        shutil.rmtree(saved, ignore_errors=True)
        shutil.copytree(written[1] / "saved", saved)
        return saved

    file = anew() / "data-00001-of-00003.arrow"
    file.write_bytes(file.read_bytes()[:-8])
    refused(saved, r"data-00001-of-00003\.arrow cannot be read: it does not end as such files do")
    (anew() / "data-00001-of-00003.arrow").unlink()
    refused(saved, "data-00001-of-00003.arrow")
    state = json.loads((anew() / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "indices.arrow"}]}))
    refused(saved, "saved with a selection of its rows apart")
    (saved / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": "../a.arrow"}]}))
    refused(saved, "cannot be read as a saved data set: state.json names no files")
    (saved / "state.json").write_text("[")
    refused(saved, "cannot be read as a saved data set: ")


# The hub


def test_a_data_set_of_the_hub(dataset_hub: DatasetHub):
    for i in range(2):
        embedded(dataset_hub.folder / f"data/train-{i}.parquet", [2 * i, 2 * i + 1])
    (dataset_hub.folder / "README.md").touch()
    (dataset_hub.folder / "saved").mkdir()
    for file in ("state.json", "dataset_info.json"):
        (dataset_hub.folder / "saved" / file).write_text("{}")
    name = f"hf://datasets/{dataset_hub.name}@main"
    source = open_source(name)
    assert (source.left_out, name_in_full(source.name)) == (3, name)
    assert list(source.keys) == [f"data/train-{i}.parquet/{row}" for i in range(2) for row in range(2)]
    worker = Worker(source.reader, InputRecipe(PreprocessSpec(12, 10)))
    try:
        decoded = worker.decode([(i, source.keys[i], source.locators[i]) for i in range(4)])
    finally:
        worker.stop()
    assert [record.reason for record in decoded] == [""] * 4
    assert contents(source) == [picture(red) for red in range(4)]
    assert source.place(3) == f"{name}/data/train-1.parquet::1"
    assert contents(open_source(f"hf://datasets/{dataset_hub.name}/data/train-1.parquet::image")) == [
        picture(2),
        picture(3),
    ]
    assert contents(open_source(f"{name}/data/*.parquet")) == [picture(red) for red in range(4)]
    refused("hf://datasets/some/dogs", "does not exist")
    refused(f"{name}/saved", r"written by save_to_disk, .* copy it to this machine, or write it as Parquet")


def test_of_a_table_behind_a_scheme_the_footer_alone_is_read_first(
    dataset_hub: DatasetHub, monkeypatch: pytest.MonkeyPatch
):
    noise = np.random.default_rng(0).bytes(2**20)
    rows = [{"bytes": noise[:-1] + bytes([i]), "path": None} for i in range(16)]
    file = dataset_hub.folder / "a.parquet"
    pq.write_table(pa.table({"image": rows}), file, row_group_size=4, compression="none", use_dictionary=False)
    monkeypatch.setattr("huggingface_hub.HfFileSystemFile.DEFAULT_BLOCK_SIZE", 2**16, raising=False)
    source = open_source(f"hf://datasets/{dataset_hub.name}/a.parquet")
    assert len(source.keys) == 16
    assert sum(dataset_hub.sent) < file.stat().st_size


def test_a_hub_that_is_away_is_no_images_fault(dataset_hub: DatasetHub):
    embedded(dataset_hub.folder / "a.parquet", [1])
    source = open_source(f"hf://datasets/{dataset_hub.name}/a.parquet")
    dataset_hub.status = 403
    with pytest.raises(OSError, match="403") as caught:
        source.read(0)
    assert not of_the_machine(caught.value)
    httpx = hubs_client()
    for error in (httpx.ConnectError("no route"), httpx.ReadTimeout("too slow"), answered(503), answered(429)):
        assert of_the_machine(error)
    assert not of_the_machine(answered(404))


def hubs_client() -> Any:
    """The library by which the hub's client speaks HTTP."""
    return sys.modules[huggingface_hub.errors.HfHubHTTPError.__mro__[1].__module__]


def answered(status: int) -> Exception:
    httpx = hubs_client()
    response = httpx.Response(status, request=httpx.Request("GET", "https://a.example"))
    return httpx.HTTPStatusError(str(status), request=response.request, response=response)
