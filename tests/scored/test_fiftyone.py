"""A folder for FiftyOne, read again as its importer reads one: extended JSON, arrays compressed, files by full paths.

FiftyOne needs a MongoDB and is no dependency of the tests. The layout was compared with what FiftyOne 1.22.1 itself
exports, and loaded by it.
"""

import base64
import io
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command_line import run

import jepa_jax as jj
from jepa_jax.scored.fiftyone_export import LAYOUT


def value_of(document: dict[str, Any]) -> Any:
    """Extended JSON to Python, as far as samples have it."""
    if "$numberDouble" in document:
        return float(document["$numberDouble"])
    if "$binary" in document:
        assert document["$binary"]["subType"] == "00"
        return np.load(io.BytesIO(zlib.decompress(base64.b64decode(document["$binary"]["base64"]))))
    return document


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """metadata.json and the samples."""
    samples = json.loads((folder / "samples.json").read_text(), object_hook=value_of)
    assert list(samples) == ["samples"]
    return json.loads((folder / "metadata.json").read_text()), samples["samples"]


@pytest.fixture(scope="module")
def scored(scored_sets: dict[str, Path]) -> jj.ScoredImages:
    return jj.ScoredImages.read(scored_sets["rough"])


@pytest.fixture(scope="module")
def folder(scored: jj.ScoredImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fiftyone") / "rough"
    written = scored.to_fiftyone(folder)
    assert (written.samples, written.left_out) == (61, 0)
    assert written.command == f"fiftyone.Dataset.from_dir('{folder}', dataset_type=fiftyone.types.FiftyOneDataset)"
    return folder


def test_every_picture_is_a_sample_with_its_score(scored: jj.ScoredImages, folder: Path):
    _, samples = read(folder)
    rows = [*scored.table.to_pylist(), *scored.failures.to_pylist()]
    assert [sample["key"] for sample in samples] == [row["key"] for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        assert Path(sample["filepath"]).is_absolute()
        assert Path(sample["filepath"]).is_file()
        assert sample["filepath"].endswith(row["key"])
        assert sample["score"] == row.get("score")
        assert sample["precision"] == row.get("precision")
        assert sample["tags"] == (["failed"] if "reason" in row else [])
        assert sample["failure"] == row.get("reason")
        assert not {"place", "bytes"} & set(sample)
    for name in ("embedding", "singular_values"):
        found = np.stack([sample[name] for sample in samples[:-1]])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.array(scored.table[name].to_pylist(), np.float32))
        assert samples[-1][name] is None
    assert len({sample["_id"]["$oid"] for sample in samples}) == 61
    assert all(len(sample["_id"]["$oid"]) == 24 and 0 <= sample["_rand"] < 1 for sample in samples)


def test_the_description_knows_every_field(folder: Path):
    metadata, samples = read(folder)
    assert (metadata["name"], metadata["media_type"], metadata["version"]) == ("rough", "image", LAYOUT)
    fields = {field["name"]: field for field in metadata["sample_fields"]}
    assert {field["db_field"] for field in fields.values()} == set(samples[0])
    kinds = {name: fields[name]["ftype"].removeprefix("fiftyone.core.fields.") for name in ("score", "precision")}
    assert kinds == {"score": "FloatField", "precision": "StringField"}
    assert fields["embedding"]["ftype"] == "fiftyone.core.fields.VectorField"
    assert "nats; higher = denser" in fields["score"]["description"]
    assert metadata["info"]["scored_with"]["encoder"] == "tiny"
    assert all(sample["_dataset_id"] == metadata["_id"] for sample in samples)


def test_predictions_keep_their_intervals(scored: jj.ScoredImages, tmp_path: Path):
    table = scored.table.slice(0, 2)
    for name, values in {
        "score_high": pa.array([np.inf, 2.5]),
        "unfamiliar": pa.array([True, False]),
        "method": pa.array(["amortised", "exact"]),
    }.items():
        table = table.append_column(name, values)
    jj.ScoredImages(table, scored.failures.slice(0, 0), scored.manifest).to_fiftyone(tmp_path / "out", "predicted")
    metadata, samples = read(tmp_path / "out")
    assert metadata["name"] == "predicted"
    assert [sample["score_high"] for sample in samples] == [np.inf, 2.5]
    assert [sample["tags"] for sample in samples] == [["unfamiliar"], []]
    assert [sample["method"] for sample in samples] == ["amortised", "exact"]


def test_what_lies_in_archives_is_left_out(scored: jj.ScoredImages, tmp_path: Path):
    pictures = Path(scored.manifest["pinned"]["input"])
    shutil.make_archive(str(tmp_path / "pictures"), "tar", pictures)
    encoder = jj.load_encoder("jepa-tiny")
    archived = jj.score_folder(tmp_path / "pictures.tar", model=encoder, limit=2, quiet=True)
    with pytest.raises(jj.JobError, match="no image is a file of its own"):
        archived.to_fiftyone(tmp_path / "out")
    both = jj.score_folder([pictures, tmp_path / "pictures.tar"], model=encoder, limit=62, quiet=True)
    written = both.to_fiftyone(tmp_path / "out")
    assert (written.samples, written.left_out) == (61, 1)
    assert len(read(tmp_path / "out")[1]) == 61


def test_refusals(scored: jj.ScoredImages, folder: Path, tmp_path: Path):
    with pytest.raises(jj.ArgumentError, match="is not empty; name a new one"):
        scored.to_fiftyone(folder)
    gone = jj.ScoredImages(scored.table, scored.failures, scored.manifest | {"pinned": {}})
    with pytest.raises(jj.JobError, match="the images are not where they were scored"):
        gone.to_fiftyone(tmp_path / "out")
    clips = scored.manifest | {"encoder_spec": {"preprocess": {"frames": 4}}}
    with pytest.raises(jj.JobError, match="these are clips of videos"):
        jj.ScoredImages(scored.table, scored.failures, clips).to_fiftyone(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(scored_sets: dict[str, Path], tmp_path: Path):
    moved = shutil.copytree(scored_sets["smooth"].parent / "images" / "smooth", tmp_path / "moved")
    done = run("fiftyone", scored_sets["smooth"], "--output", tmp_path / "out", "--images", moved, "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert f"60 samples in {tmp_path / 'out'}" in done.stdout
    metadata, samples = read(tmp_path / "out")
    assert metadata["name"] == "mine"
    assert all(Path(sample["filepath"]).is_relative_to(moved) for sample in samples)
    done = run("fiftyone", scored_sets["smooth"], "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "name a new one" in done.stderr
