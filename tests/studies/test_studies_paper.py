"""The paper's experiments as commands, over a tiny encoder and drawn pictures; their numbers against NumPy."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr
from scored_sets import SPEC, VIT
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import jepa_jax as jj
from jepa_jax.cli import app
from jepa_jax.encoders import Encoder, save_encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.scored.reading import read_table
from jepa_jax.studies.paper_eps import sensitivity
from jepa_jax.studies.paper_sets import read_set, score_set


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two encoders of one architecture, so that one program serves both."""
    folder = tmp_path_factory.mktemp("models")
    paths = [folder / f"tiny{seed}" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        spec = SPEC.__class__(path.name, SPEC.family, SPEC.vit, SPEC.preprocess)
        save_encoder(Encoder(spec, initialize_params(VIT, seed)), path)
    return paths


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of drawn pictures in sub-folders, and arrays of other ones."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("n02", "n01", "n03"):
        (folder / "classes" / name).mkdir(parents=True)
        for i in range(12):
            cells = rng.integers(0, 256, (6, 6, 3), np.uint8)
            Image.fromarray(cells).resize((48, 48)).save(folder / "classes" / name / f"{i:02d}.png")
    np.savez(folder / "arrays.npz", grey=rng.integers(0, 256, (30, 28, 28), np.uint8), bad=np.zeros((3, 4)))
    return folder


def run(*arguments: str | Path) -> str:
    """A study in this process, so that compiled programs are shared."""
    done = CliRunner().invoke(app, ["study", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def record(output: Path, study: str) -> dict:
    """What it wrote."""
    found = json.loads((output / f"{study}.json").read_text())
    assert found["command"].startswith("jepa-jax")
    assert {"commit", "jepa_jax", "jax", "device", "date"} <= found.keys()
    assert found["command"] in (output / f"{study}.md").read_text()
    return found["results"]


def test_imagenet_shows_the_extremes_of_a_class_by_every_model(checkpoints: list[Path], data: Path, tmp_path: Path):
    models = [argument for path in checkpoints for argument in ("--model", path)]
    run("imagenet", data / "classes", *models, "--class", "1", "--count", "3", "--output", tmp_path)
    results = record(tmp_path, "imagenet")
    images = read_set(str(data / "classes"), label="n02")  # the second name in order
    assert results["images"] == 12
    scores = [score_set(jj.load_encoder(path), images).scores["score"] for path in checkpoints]
    for path, own in zip(checkpoints, scores, strict=True):
        expected = [images.keys[row] for row in np.argsort(own)[:3]]
        assert [entry["key"] for entry in results["models"][path.name]["least"]] == expected
    found = results["agreement"][0]["spearman"]
    assert found == pytest.approx(float(np.asarray(spearmanr(scores[0], scores[1]))[0]), abs=1e-9)
    page = (tmp_path / "imagenet.html").read_text()
    assert page.count("data:image/webp") == 2 * 9  # three shelves of three by two models
    assert all(path.name in page for path in checkpoints)


def test_ood_judges_sets_and_their_complexity(checkpoints: list[Path], data: Path, tmp_path: Path):
    run(
        *("ood", "--model", checkpoints[0], "--in", f"drawn={data / 'classes'}"),
        *("--out", f"noise={data / 'arrays.npz'}:grey", "--output", tmp_path),
    )
    results = record(tmp_path, "ood")["tiny0"]
    assert {row["out"] for row in results["rows"]} == {"noise"}
    row = next(row for row in results["rows"] if row["statistic"] == "score")
    encoder = jj.load_encoder(checkpoints[0])
    inside = score_set(encoder, read_set(str(data / "classes"))).scores["score"]
    outside = score_set(encoder, read_set(f"{data / 'arrays.npz'}:grey")).scores["score"]
    labels = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    assert row["result"]["auroc"]["value"] == pytest.approx(roc_auc_score(labels, np.r_[inside, outside]), abs=1e-12)
    assert results["controls"]["noise"]["auroc_complexity"] > 0.99  # noise hardly compresses
    assert "data:image/webp" in (tmp_path / "ood-tiny0.html").read_text()


def test_views_compare_one_view_with_many(checkpoints: list[Path], data: Path, tmp_path: Path):
    run("views", data / "classes", "--model", checkpoints[0], "--views", "4", "--images", "10", "--output", tmp_path)
    results = record(tmp_path, "views")["tiny0"]
    assert [row["views"] for row in results["rows"]] == [2, 4]
    assert results["rows"][-1]["spearman_with_all_views"] == pytest.approx(1)
    assert results["spread_between_views"] > 0


def test_eps_leaves_structural_scores_alone_and_moves_noise(tmp_path: Path):
    rng = np.random.default_rng(0)
    spectra = np.exp(rng.normal(0, 1, (50, 20)))
    spectra[:, -2:] = 3e-6 * rng.uniform(0.5, 2, (50, 2))  # two null directions at rounding noise
    np.savez(tmp_path / "a.npz", singular_values=spectra)
    run("eps", tmp_path / "a.npz", "--null-directions", "2", "--output", tmp_path)
    rows = {(row["null_directions_left_out"], row["eps"]): row for row in record(tmp_path, "eps")["rows"]}
    assert rows[2, 1e-10]["largest_shift"] == rows[2, 1e-4]["largest_shift"] == 0
    assert rows[0, 1e-4]["clipped_per_image"] == 2
    expected = np.log(np.maximum(np.sort(spectra.astype(np.float32).astype(np.float64)), 1e-4)).sum(axis=1)
    base = np.log(np.maximum(spectra.astype(np.float32).astype(np.float64), 1e-6)).sum(axis=1)
    assert rows[0, 1e-4]["mean_shift"] == pytest.approx(float(np.mean(expected - base)), abs=1e-9)
    table = read_table(tmp_path / "a.npz", null_directions=2)
    separated = sensitivity(table, table)[0]["rows"]
    assert {row["auroc"] for row in separated} == {0.5}


def test_sets_that_cannot_be_read_are_named(data: Path):
    arrays = data / "arrays.npz"
    for text, label, message in (
        (f"{arrays}", None, "must name an array"),
        (f"{arrays}:nothing", None, "has no array 'nothing'; it has grey, bad"),
        (f"{arrays}:bad", None, "pass uint8 values"),
        (f"{arrays}:grey", "3", "needs a folder with a sub-folder per class"),
        (str(data / "classes"), "7", "none of the 3 sub-folders"),
    ):
        with pytest.raises(jj.ArgumentError, match=message):
            read_set(text, label=label)
    assert len(read_set(f"{arrays}:grey", 7)) == 7
    assert read_set(f"{arrays}:grey", 7).keys == read_set(f"{arrays}:grey", 7).keys


def test_a_class_of_a_tfds_data_set_is_found_by_name_and_number(tmp_path: Path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Drawn(tfds.core.GeneratorBasedBuilder):
        """Six grey pictures of two classes."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["kite", "jay"])}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(6):
                encoded = io.BytesIO()
                Image.new("RGB", (20, 20), (40 * i,) * 3).save(encoded, "PNG")
                yield i, {"image": io.BytesIO(encoded.getvalue()), "label": "jay" if i % 3 == 0 else "kite"}

    builder = Drawn(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    name = f"tfds:{builder.data_dir}/train"
    jays = read_set(name, label="jay")
    assert sorted(np.asarray(image)[0, 0, 0] for image in jays.images) == [0, 120]
    assert read_set(name, label="1").keys == jays.keys
    assert len(read_set(name, label="0")) == 4
    assert len(read_set(name)) == 6
    with pytest.raises(jj.ArgumentError, match="none of the 2 classes"):
        read_set(name, label="owl")


STUDIES = ("card", "study", "evaluation", "eps", "imagenet", "ood", "views")
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(RESULTS.glob("*/*.json")) if path.stem in STUDIES],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_committed_results_say_how_they_were_made(path: Path):
    """The command, the commit of an unchanged tree, and versions; beside them a page for people.

    Of a changed tree the page says what was changed.
    """
    document = json.loads(path.read_text())
    origin = document.get("context", document)
    assert origin["command"].startswith(("jepa-jax ", "python -m studies."))
    pages = [page.read_text() for page in path.parent.glob("*.md")]
    assert re.fullmatch(r"[0-9a-f]{7,40}(\+|-dirty)?", origin["commit"])
    mark = re.sub("^[0-9a-f]+", "", origin["commit"])
    assert not mark or any(f"the `{mark}` in" in page for page in pages)
    assert {"jax", "jepa_jax", "python"} <= origin.get("versions", origin).keys()
    assert pages
