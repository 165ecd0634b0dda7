"""Jobs that score several layers: a column each, pinned by the manifest, compared by `evaluate`."""

import io
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from jobs_shared import Silent, run_score, table, tiny_encoder
from makes import TINY
from PIL import Image
from rich.console import Console

import jepa_jax as jj
from jepa_jax.analysis.evaluation import Options, evaluate
from jepa_jax.analysis.selection import require_column
from jepa_jax.cli.reporting import print_summary
from jepa_jax.encoders import Encoder, save_encoder
from jepa_jax.jobs import JobOptions, Summary, open_source, run_job
from jepa_jax.scored.reading import read_table
from jepa_jax.scoring.options import ScoreOptions

NATS = 1e-4
"""What float32 moves a score by here where batches differ, and more."""

BOTH = JobOptions(ScoreOptions(layers=[-1, 1]), shard_size=8, batch_size=4)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(20):
        cells = rng.integers(0, 256, (4 + i, 5, 3), np.uint8)
        Image.fromarray(cells).resize((70, 64)).save(folder / f"{i:02d}.png")
    (folder / "broken.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def output(encoder: Encoder, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("out") / "scores"
    summary = run_job(encoder, open_source(pictures), target, Silent(), BOTH)
    assert (summary.scored, summary.failed) == (20, 1)
    return target


def test_a_column_for_each_layer(encoder: Encoder, pictures: Path, output: Path):
    found = table(output)
    layers = ["score_layer_1", "score_error_layer_1", "score_layer_2", "score_error_layer_2"]
    assert found.column_names[-5:] == ["log_volume_rank", *layers]
    batch = encoder.preprocess([Image.open(pictures / key) for key in found["key"].to_pylist()])
    for number in (1, 2):
        expected = np.asarray(jj.score(encoder.at_layer(number), batch).score)
        np.testing.assert_allclose(found[f"score_layer_{number}"], expected, rtol=0, atol=NATS)
    np.testing.assert_array_equal(found["score_layer_2"], found["score"])  # the last one is the encoder
    schema = pq.read_schema(output / "scores" / "part-00000.parquet")
    documented = schema.field("score_layer_1").metadata[b"doc"].decode()
    assert f"logs of {TINY.embedding_size - 2} singular values of block 1's own embedding" in documented


def test_the_layers_are_the_jobs(encoder: Encoder, pictures: Path, output: Path):
    pinned = json.loads((output / "manifest.json").read_text())["pinned"]
    assert pinned["layers"] == [1, 2]
    source = open_source(pictures)
    # What is missing is computed again, whichever way the layers are counted.
    lost = output / "scores" / "part-00001.parquet"
    before = pq.read_table(lost)
    lost.unlink()
    again = JobOptions(ScoreOptions(layers=[1, 2, -2]), shard_size=8, batch_size=4)
    assert run_job(encoder, source, output, Silent(), again).resumed == 13
    assert pq.read_table(lost).equals(before)
    for layers, difference in (([1], r"layers: \[1, 2\] there, \[1\] now"), ([], r"layers: \[1, 2\] there, None now")):
        with pytest.raises(jj.JobError, match=difference):
            run_job(encoder, source, output, Silent(), JobOptions(ScoreOptions(layers=layers), shard_size=8))
    with pytest.raises(jj.ArgumentError, match="there is no layer 3; the encoder has 2 blocks"):
        run_job(encoder, source, output / "other", Silent(), JobOptions(ScoreOptions(layers=[3])))
    assert not (output / "other").exists()


def test_a_job_without_layers_is_pinned_as_ever(encoder: Encoder, pictures: Path, tmp_path: Path):
    run_job(encoder, open_source(pictures), tmp_path / "out", Silent(), JobOptions(batch_size=4))
    assert "layers" not in json.loads((tmp_path / "out" / "manifest.json").read_text())["pinned"]


def test_views_are_combined_for_each_layer(encoder: Encoder, pictures: Path, tmp_path: Path):
    options = JobOptions(ScoreOptions(layers=[1, 2]), views=3, batch_size=6)
    run_job(encoder, open_source(pictures), tmp_path / "out", Silent(), options)
    found = table(tmp_path / "out")
    np.testing.assert_allclose(found["score_layer_2"], found["score"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["score_error_layer_2"], found["score_error"], rtol=1e-6)
    assert np.all(np.asarray(found["score_layer_1"]) != np.asarray(found["score"]))


def test_a_layer_without_a_score_is_null_and_loses_no_other(encoder: Encoder, pictures: Path, tmp_path: Path):
    # The class token asks no other token in the first block: nothing of the image is in it before the second.
    first = encoder.params["blocks"][0] | {"layer_scale1": jnp.zeros(TINY.vit.width)}
    deaf = Encoder(TINY, encoder.params | {"blocks": {0: first, 1: encoder.params["blocks"][1]}})
    run_job(deaf, open_source(pictures), tmp_path / "out", Silent(), BOTH)
    found = table(tmp_path / "out")
    assert found.num_rows == 20
    assert found["score_layer_1"].null_count == found["score_error_layer_1"].null_count == 20
    assert np.all(np.isfinite(found["score_layer_2"].to_numpy()))
    shown = Console(record=True, width=120, file=io.StringIO())
    print_summary(shown, Summary(21, 20, 1, 0), tmp_path / "out")
    assert "20 of them have no score of layer 1: values below the clip" in shown.export_text()
    scored = read_table(tmp_path / "out", name="in")
    other = read_table(tmp_path / "out", name="out")
    judged = evaluate(scored, [other], options=Options(reference_share=0, resamples=5))
    assert [row.statistic for row in judged.rows] == ["score", "listing_score", "score_layer_2"]
    assert "score_layer_1 is left out: 20 of 20 images of in have none." in judged.notes
    with pytest.raises(jj.ArgumentError, match="'score_layer_1' has no value for 20 of the 20 images of 'in'"):
        require_column(scored, "score_layer_1")


def test_the_command_scores_layers_and_evaluate_compares_them(encoder: Encoder, pictures: Path, tmp_path: Path):
    save_encoder(encoder, tmp_path / "tiny")
    # From where the other layers' tables begin: the same rows.
    done = run_score(
        pictures, "--model", tmp_path / "tiny", "--output", tmp_path / "out", "--layer", "-2", "--layer", "2",
        "--workers", "0", "--batch-size", "4", "--limit", "6",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "out")
    assert {"score_layer_1", "score_layer_2"} <= set(found.column_names)
    wrong = run_score(pictures, "--model", tmp_path / "tiny", "--output", tmp_path / "x", "--layer", "0")
    assert wrong.returncode == 2
    assert "there is no layer 0; the encoder has 2 blocks: 1 to 2, or -2 to -1" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    tables = [read_table(tmp_path / "out", name=name) for name in ("in", "out")]
    judged = evaluate(tables[0], tables[1:], options=Options(reference_share=0, resamples=5))
    assert [row.statistic for row in judged.rows] == ["score", "listing_score", "score_layer_1", "score_layer_2"]
    assert {row.result.auroc.value for row in judged.rows} == {0.5}


def test_the_scorer_for_engines_has_them(encoder: Encoder, pictures: Path, tmp_path: Path, output: Path):
    save_encoder(encoder, tmp_path / "tiny")
    scorer = jj.BatchScorer(tmp_path / "tiny", keep=False, batch_size=4, layers=[-1, 1])
    found = scorer({"image": [(pictures / name).read_bytes() for name in ("00.png", "broken.png", "01.png")]})
    expected = table(output)["score_layer_1"].to_pylist()
    assert found["score_layer_1"][1] is None
    np.testing.assert_allclose([found["score_layer_1"][i] for i in (0, 2)], expected[:2], rtol=0, atol=NATS)
    with pytest.raises(jj.ArgumentError, match="layers=3 must be a list of whole numbers"):
        jj.BatchScorer(tmp_path / "tiny", layers=3)  # pyright: ignore[reportArgumentType]
