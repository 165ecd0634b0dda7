"""`BatchScorer` in the engines: the scores of `jepa-jax score`, whoever moves the pictures."""

import dataclasses
import io
import logging
import multiprocessing
import os
import pickle
import shutil
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from jobs_shared import Silent, failures, table, tiny_encoder
from PIL import Image

import jepa_jax as jj
from jepa_jax import batch_scorer
from jepa_jax.encoders import save_encoder
from jepa_jax.jobs import JobOptions, open_source, run_job

# The same program scores the same inputs; only which of them lie beside each other in a batch differs.
NATS = 1e-5
BATCH = 8
COUNT = 26
DAMAGED = "07.png"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_encoder(tiny_encoder(), path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several formats and sizes, and a damaged one."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        coarse = rng.integers(0, 256, (6, 5 + i % 4, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((70 + 7 * i, 90), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i:02d}.{('jpg', 'png', 'webp')[i % 3]}")
    (folder / DAMAGED).write_bytes((folder / DAMAGED).read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def expected(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float | None]:
    """File name to score, as the job finds it; None of what failed."""
    output = tmp_path_factory.mktemp("job") / "out"
    run_job(jj.load_encoder(model), open_source(pictures), output, Silent(), JobOptions(batch_size=BATCH))
    assert list(failures(output)) == [DAMAGED]
    found = {row["key"]: row["score"] for row in table(output).to_pylist()}
    return {path.name: found.get(path.name) for path in sorted(pictures.iterdir())}


@pytest.fixture(scope="module")
def scorer(model: Path) -> jj.BatchScorer:
    return jj.BatchScorer(model=model, batch_size=BATCH)


def encoded(pictures: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(pictures.iterdir())]


def in_objects(cells: list[Any]) -> np.ndarray:
    column = np.empty(len(cells), object)
    column[:] = cells
    return column


def require_same(scores: Any, expected: dict[str, float | None], names: list[str] | None = None) -> None:
    """Every score is the job's, and null where the job has a failure."""
    wanted = list(expected.values()) if names is None else [expected[name] for name in names]
    found = [None if value is None or value is np.ma.masked or np.isnan(value) else value for value in scores]
    assert [value is None for value in found] == [value is None for value in wanted]
    pairs = [(a, b) for a, b in zip(found, wanted, strict=True) if a is not None]
    np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=0, atol=NATS)


def test_every_kind_of_batch_and_cell_has_the_jobs_scores(
    scorer: jj.BatchScorer, pictures: Path, expected: dict[str, float | None]
):
    contents = encoded(pictures)
    texts = [str(path) for path in sorted(pictures.iterdir())]
    structs = [{"bytes": content, "path": None} for content in contents]
    structs[:3] = [{"bytes": None, "path": path} for path in texts[:3]]
    opened = [Image.open(io.BytesIO(content)) for content in contents]
    for cells in (contents, texts, structs, opened):
        found = scorer({"image": cells, "row": list(range(COUNT))})
        assert list(found)[:3] == ["image", "row", "score"]
        assert all(isinstance(column, list) for column in found.values())
        require_same(found["score"], expected)
        assert [row for row, reason in enumerate(found["failure"]) if reason is not None] == [7]
        assert found["log_volume_rank"][6:9] == [22, None, 22]
    assert "decoded" in found["failure"][7]
    arrays = scorer({"image": in_objects(contents)})
    assert arrays["score"].dtype == np.float64
    assert arrays["failure"].dtype == object
    require_same(arrays["score"], expected)
    assert np.isnan(np.asarray(arrays["score"])[7])  # should someone drop the mask
    frame = scorer(pd.DataFrame({"image": contents}, index=[f"row {i}" for i in range(COUNT)]))
    assert isinstance(frame, pd.DataFrame)
    require_same(frame["score"], expected)
    assert list(frame.index)[7] == "row 7"
    assert [row for row, reason in zip(frame.index, frame["failure"], strict=True) if pd.notna(reason)] == ["row 7"]
    arrow = scorer(pa.table({"image": contents, "row": range(COUNT)}))
    require_same(arrow["score"].to_pylist(), expected)
    assert arrow["score"].null_count == arrow["precision"].null_count == 1
    assert b"nats" in arrow.schema.field("score").metadata[b"doc"]


@pytest.fixture(scope="module")
def predictor(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted on noise; what it predicts is compared with itself."""
    encoder, rng = jj.load_encoder(model), np.random.default_rng(0)
    noise = encoder.preprocess(list(rng.integers(0, 256, (100, 40, 40, 3), np.uint8)))
    folder = tmp_path_factory.mktemp("predictor") / "head"
    jj.fit_amortised(encoder, noise, rng.standard_normal(100)).save(folder)
    return folder


def test_predictions_are_those_of_the_predictor(model: Path, predictor: Path, pictures: Path):
    scorer = pickle.loads(pickle.dumps(jj.BatchScorer(model=model, predictor=predictor, save=["embedding"])))
    encoder = jj.load_encoder(model)
    sound = [path for path in sorted(pictures.iterdir()) if path.name != DAMAGED]
    wanted = jj.Amortised.load(predictor, encoder).predict(encoder.preprocess([Image.open(path) for path in sound]))
    found = scorer({"image": encoded(pictures)})
    assert [row for row, reason in enumerate(found["failure"]) if reason is not None] == [7]
    assert found["method"] == ["amortised"] * 7 + [None] + ["amortised"] * (COUNT - 8)
    assert set(found["precision"]) == set(found["score_error"]) == {None}
    del found["image"]
    rows = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True) if row[-1] is None]
    for name in ("score", "score_low", "score_high"):
        # One forward pass in float32, in another batch.
        np.testing.assert_allclose([row[name] for row in rows], getattr(wanted, name), atol=0.01)
    np.testing.assert_array_equal([row["unfamiliar"] for row in rows], wanted.unfamiliar)
    embeddings = np.array([row["embedding"] for row in rows])
    np.testing.assert_allclose(embeddings, encoder(encoder.preprocess([Image.open(p) for p in sound])), atol=1e-4)
    frame = scorer(pd.DataFrame({"image": encoded(pictures)}))
    np.testing.assert_array_equal(frame["score"].dropna(), [row["score"] for row in rows])


def test_a_predictor_takes_no_options_of_exact_scores(model: Path, predictor: Path, tmp_path: Path):
    cases: tuple[dict[str, Any], ...] = ({"precision": "float64"}, {"layers": [-1]}, {"save": ["singular_values"]})
    for options in cases:
        with pytest.raises(jj.ArgumentError, match="is for exact scores, and predictor predicts them"):
            jj.BatchScorer(model=model, predictor=predictor, **options)
    with pytest.raises(jj.CheckpointError, match=r"amortised\.json cannot be read"):
        jj.BatchScorer(model=model, predictor=tmp_path)({"image": []})


def test_arrays_of_pixels_have_the_scores_of_the_files_they_are_of(
    scorer: jj.BatchScorer, pictures: Path, expected: dict[str, float | None]
):
    names = [name for name in expected if name != DAMAGED]
    ragged = [np.asarray(Image.open(pictures / name).convert("RGB")) for name in names]
    require_same(scorer({"image": in_objects(ragged)})["score"], expected, names)
    alike = np.stack([ragged[0], ragged[0][:, ::-1]])
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(alike)
    found = [scorer({"image": alike})["score"], scorer(pa.table({"image": tensors}))["score"].to_pylist()]
    np.testing.assert_array_equal(found[0], found[1])
    require_same(found[0][:1], expected, names[:1])
    grey = scorer({"image": alike[..., 0]})["score"]
    np.testing.assert_allclose(grey, scorer({"image": alike[..., :1]})["score"], rtol=0, atol=NATS)


def test_further_columns_and_views_are_the_jobs(model: Path, pictures: Path, tmp_path: Path):
    options = JobOptions(views=3, seed=1, columns=("embedding",), save_dtype="float16", batch_size=12)
    run_job(jj.load_encoder(model, image_size=28), open_source(pictures), tmp_path / "out", Silent(), options)
    rows = table(tmp_path / "out").drop_columns(["place", "bytes"]).to_pylist()
    scorer = jj.BatchScorer(
        model, keep=["key"], image_size=28, save=["embedding"], save_dtype="float16", views=3, seed=1, key="key",
        batch_size=12,
    )  # fmt: skip
    found = scorer(pa.table({"image": encoded(pictures), "key": sorted(path.name for path in pictures.iterdir())}))
    found = found.filter(found["failure"].is_null()).drop_columns("failure")
    assert found.column_names == list(rows[0])
    assert found.schema.field("embedding").type == pa.list_(pa.float16(), 24)
    for name in ("score", "views_standard_error", "effective_views"):
        np.testing.assert_allclose(found[name].to_pylist(), [row[name] for row in rows], rtol=0, atol=NATS)
    assert found["embedding"].to_pylist() == [row["embedding"] for row in rows]
    as_arrays = scorer({"image": in_objects([*encoded(pictures)[:2], b""]), "key": np.array(["00.jpg", "x", "y"])})
    assert as_arrays["embedding"].shape == (3, 24)
    assert np.isnan(np.asarray(as_arrays["embedding"])[2]).all()
    with pytest.raises(jj.ArgumentError, match="key=COLUMN"):
        jj.BatchScorer(model, views=3)


def test_an_empty_batch_has_the_columns_and_types(scorer: jj.BatchScorer, pictures: Path):
    one = scorer(pa.table({"image": encoded(pictures)[:1]}))
    assert scorer(pa.table({"image": pa.array([], pa.binary())})).schema == one.schema
    empty = scorer({"image": np.empty((0, 8, 8, 3), np.uint8)})
    assert {name: empty[name].dtype.kind for name in one.column_names} == {
        "image": "u", "score": "f", "score_error": "f", "precision": "O", "listing_score": "f",
        "log_volume_rank": "i", "failure": "O",
    }  # fmt: skip
    assert all(len(column) == 0 for column in empty.values())
    assert scorer({"image": []})["failure"] == []
    assert len(scorer(pd.DataFrame({"image": []}))) == 0


def test_it_pickles_as_its_arguments_and_loads_once(model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(model.parent)
    scorer = jj.BatchScorer(model="tiny", batch_size=4, keep=["image"])
    assert scorer.model == str(model)  # a worker may run elsewhere
    loads = []
    load = batch_scorer.load_encoder

    def counted(*arguments: Any, **options: Any):
        loads.append(arguments)
        return load(*arguments, **options)

    monkeypatch.setattr(batch_scorer, "load_encoder", counted)
    found: list[Any] = []
    batch = {"image": encoded(pictures)[:3]}
    threads = [threading.Thread(target=lambda: found.append(scorer(batch)["score"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(scores == found[0] for scores in found)
    copy = pickle.loads(pickle.dumps(scorer))
    assert copy == scorer
    assert copy(batch)["score"] == found[0]
    dataclasses.replace(scorer, keep=False)(batch)  # needs no encoder of its own
    assert len(loads) == 1
    assert len(pickle.dumps(scorer)) < 1000


def test_another_encoder_in_the_same_directory_is_loaded_by_another_scorer(tmp_path: Path, pictures: Path):
    one, directory, batch = tiny_encoder(), tmp_path / "latest", {"image": encoded(pictures)[:2]}
    params = one.params | {"norm": {name: 2 * value for name, value in one.params["norm"].items()}}
    found = []
    for encoder in (one, jj.Encoder(one.spec, params)):
        shutil.rmtree(directory, ignore_errors=True)
        save_encoder(encoder, directory)
        found.append(jj.BatchScorer(model=directory, batch_size=2)(batch))
    # Twice the gain is twice of every singular value; both scores are as near to the exact ones as they say.
    rank = one.spec.embedding_size - one.null_direction_count
    near = np.add(found[0]["score_error"], found[1]["score_error"])
    assert np.all(np.abs(np.subtract(found[1]["score"], found[0]["score"]) - rank * np.log(2)) <= near)


def test_what_could_be_read_in_two_ways_is_refused_and_a_bad_picture_is_not(scorer: jj.BatchScorer):
    for column, says in (
        (np.zeros((2, 8, 8, 3), np.float32), r"dtype float32 .* uint8 values 0\.\.255"),
        (np.zeros((2, 3, 8, 8), np.uint8), "channels come first; write"),
        ([np.zeros((3, 8, 9), np.uint8)], "channels come first"),
        (np.zeros((8, 8, 3), np.uint8), r"one picture .* write array\[None\]"),
        (np.array([b"GIF89a"]), "dtype object"),
        ([[[1, 2], [3, 4]]], r"with_format\('numpy'\)"),
        ([3], "uint8 arrays"),
        (b"GIF89a", "batched=True"),
    ):
        with pytest.raises(jj.ArgumentError, match=says):
            scorer({"image": column})
    three_grey = np.zeros((3, 8, 9), np.uint8)  # what a column holds is a row each: nothing else
    bad = [None, b"", "/nowhere/a.png", {"bytes": None, "path": None}, np.zeros((8, 9, 2), np.uint8), float("nan")]
    found = scorer({"image": [*bad, *three_grey]})
    assert found["score"][:6] == [None] * 6
    assert found["failure"][:6] == [
        "there is no image in this row",
        "the file is empty",
        "it cannot be read: No such file or directory",
        "there is no image in this row",
        "the image array has shape (8, 9, 2); it must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].",
        "there is no image in this row",
    ]


def test_columns_that_are_not_there_or_there_twice_are_named(scorer: jj.BatchScorer, pictures: Path):
    with pytest.raises(jj.ArgumentError, match=r"column='image': .* no such column; .*\['picture'\]"):
        scorer({"picture": encoded(pictures)})
    with pytest.raises(jj.ArgumentError, match="2 such columns"):
        scorer(pa.table([[b""], [b""]], ["image", "image"]))
    with pytest.raises(jj.ArgumentError, match=r"\['score'\], as the scores have; .* keep=\['image'\]"):
        scorer({"image": [b""], "score": [1.0]})
    with pytest.raises(jj.ArgumentError, match=r"keep has \['label'\]"):
        dataclasses.replace(scorer, keep=["label"])({"image": [b""]})
    with pytest.raises(
        jj.ArgumentError, match=r"columns of several lengths, \{'image': 1, 'label': 2\}; give each row"
    ):
        scorer({"image": [b""], "label": [1, 2]})
    assert "image" not in dataclasses.replace(scorer, keep=False)({"image": [b""], "score": [1.0]})
    with pytest.raises(jj.ArgumentError, match="batch is a list"):
        scorer([b""])
    own = jj.OwnEncoder(lambda kernel, x: x @ kernel, np.eye(3, dtype=np.float32))
    with pytest.raises(jj.ArgumentError, match=r"type OwnEncoder; .* docs/own-encoders\.md"):
        jj.BatchScorer(model=own)  # pyright: ignore[reportArgumentType]
    with pytest.raises(jj.ArgumentError, match="save_encoder"):
        jj.BatchScorer(model=tiny_encoder())  # pyright: ignore[reportArgumentType]
    unfit: dict[str, Any] = {"precision": "float33", "save": ["scores"], "keep": "image", "batch_size": 0}
    for name, value in unfit.items():
        with pytest.raises(jj.ArgumentError, match=name if name != "save" else "columns"):
            jj.BatchScorer(**{name: value})


def test_the_machines_faults_are_no_images(scorer: jj.BatchScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "another").touch()
    away = [str(tmp_path / "disk" / f"{i}.png") for i in range(9)]
    with pytest.raises(jj.JobError, match=r"disk is not there, and 9 of the 9 .* let the engine try this batch again"):
        scorer({"image": away})

    def out_of_handles(path: str) -> bytes:
        raise OSError(24, os.strerror(24), path)

    monkeypatch.setattr("jepa_jax.images.cells.read_file", out_of_handles)
    with pytest.raises(jj.JobError, match=r"Too many open files.*No image is to blame"):
        scorer({"image": ["/a.png"]})


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore:.*multi-threaded:DeprecationWarning")
def test_a_process_forked_while_jax_runs_is_told_so(scorer: jj.BatchScorer):
    scorer({"image": [b""]})
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def child() -> None:
        try:
            scorer({"image": [b""]})
        except BaseException as error:
            theirs.send(repr(error))

    process = fork.Process(target=child, daemon=True)
    process.start()
    assert ours.poll(30)
    assert "forked" in ours.recv()
    process.join()


def test_datasets_map(scorer: jj.BatchScorer, pictures: Path, expected: dict[str, float | None], tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    datasets.config.HF_DATASETS_CACHE = tmp_path
    datasets.disable_progress_bars()
    cells = [{"bytes": content, "path": None} for content in encoded(pictures)]
    features = datasets.Features({"image": datasets.Image(), "row": datasets.Value("int32")})
    data = datasets.Dataset.from_dict({"image": cells, "row": range(COUNT)}, features=features)
    # The first batch has no failure, and the last ones are short.
    for given in (data, data.cast_column("image", datasets.Image(decode=False)), data.with_format("arrow")):
        found = given.map(scorer, batched=True, batch_size=7)
        require_same(found.with_format(None)["score"], expected)
        assert found.features["image"] == given.features["image"]
        assert found.features["score"].dtype == "float64"
        assert found.features["failure"].dtype == "string"
        assert found.data["image"].to_pylist() == cells  # not decoded and encoded again
    bare = data.map(dataclasses.replace(scorer, keep=["row"]), batched=True, remove_columns=data.column_names)
    assert bare.column_names[:2] == ["row", "score"]
    squares = [Image.open(path).convert("RGB").resize((64, 64)) for path in sorted(pictures.iterdir())[:4]]
    whole = [np.asarray(square) for square in squares]
    features = datasets.Features({"image": datasets.Array3D((64, 64, 3), "uint8")})
    pixels = datasets.Dataset.from_dict({"image": whole}, features=features)
    require = scorer({"image": np.stack(whole)})["score"]
    np.testing.assert_allclose(pixels.map(scorer, batched=True)["score"], require, rtol=0, atol=NATS)
    streamed = data.cast_column("image", datasets.Image(decode=False)).to_iterable_dataset()
    require_same([row["score"] for row in streamed.map(scorer, batched=True, batch_size=9)], expected)


@pytest.fixture(scope="module")
def ray_data() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, logging_level=logging.ERROR)
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray.data
        ray.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_ray_data_with_two_workers(
    ray_data: Any, model: Path, pictures: Path, expected: dict[str, float | None], scorer: jj.BatchScorer
):
    files = ray_data.read_binary_files(str(pictures), include_paths=True, override_num_blocks=4)
    arguments = {"model": str(model), "column": "bytes", "keep": ["path"], "batch_size": BATCH}
    actors = files.map_batches(
        jj.BatchScorer, fn_constructor_kwargs=arguments, concurrency=2, num_cpus=0.5, batch_size=7
    )
    as_tables = files.map_batches(jj.BatchScorer(**arguments), batch_format="pyarrow", batch_size=7)
    for scored in (actors, as_tables):
        rows = sorted(scored.take_all(), key=lambda row: row["path"])
        require_same([row["score"] for row in rows], expected, [Path(row["path"]).name for row in rows])
        assert [Path(row["path"]).name for row in rows if row["failure"] is not None] == [DAMAGED]
