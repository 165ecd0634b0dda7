"""Jobs over several views of each image: the table against the library, resume, processes, refusals."""

import dataclasses
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jobs_shared import Silent, failures, run_score, table, tiny_encoder
from makes import TINY as SPEC
from PIL import Image
from rich.console import Console

import jepa_jax as jj
from jepa_jax.analysis import evaluate, read_table
from jepa_jax.cli.dry_run import print_dry_run
from jepa_jax.costs.dry_run import dry_run
from jepa_jax.encoders import Encoder, save_encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.images.decoding import InputRecipe
from jepa_jax.images.views import RECIPES, ViewRecipe, Views, combine_views, draw_views
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.output.columns import record_columns
from jepa_jax.jobs.rows.exact import ExactStep
from jepa_jax.numerics.precision import LEVELS
from jepa_jax.scoring.readings import ScoreResult

VIEWS = Views(3, 5, RECIPES["dinov2"])
OPTIONS = JobOptions(views=3, seed=5, columns=("embedding", "singular_values"), batch_size=8, shard_size=2)
"""Four inputs per image, two images in a step."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of several sizes, and one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(5):
        cells = Image.fromarray(rng.integers(0, 256, (6, 5 + i, 3), np.uint8))
        cells.resize((90 + 7 * i, 80), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    (folder / "2-broken.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished job; two worker processes drew its views."""
    output = tmp_path_factory.mktemp("finished") / "out"
    summary = run_job(tiny_encoder(), open_source(pictures), output, Silent(), dataclasses.replace(OPTIONS, workers=2))
    assert (summary.scored, summary.failed) == (5, 1)
    return output


def test_a_job_combines_the_views_as_the_library_does(pictures: Path, finished: Path):
    rows = table(finished).to_pylist()
    assert [row["key"] for row in rows] == [f"{i}.png" for i in range(5)]
    assert list(failures(finished)) == ["2-broken.png"]
    for row in rows:
        with Image.open(pictures / row["key"]) as picture:
            views = draw_views(picture, row["key"], VIEWS, SPEC.preprocess)
            plain = tiny_encoder().preprocess([picture])
        # Eight at a time, as the job: its own program, and the same rounding.
        expected = jj.score(tiny_encoder(), np.concatenate([plain, views, plain, views]))
        for name in ("score", "listing_score"):
            each = np.asarray(getattr(expected, name), np.float64)[1:4]
            assert row[name] == pytest.approx(-np.log(np.mean(np.exp(-each))), rel=1e-12)
        combined = combine_views(np.asarray(expected.score)[None, 1:4])
        assert row["views_standard_error"] == pytest.approx(combined.standard_error[0], rel=1e-9)
        assert row["effective_views"] == pytest.approx(combined.effective_views[0], rel=1e-9)
        assert 1 <= row["effective_views"] <= 3
        assert 0 < row["score_error"] <= np.asarray(expected.score_error)[1:4].max()
        np.testing.assert_array_equal(row["embedding"], expected.embedding[0])
        np.testing.assert_array_equal(row["singular_values"], expected.singular_values[0])
        assert row["log_volume_rank"] == SPEC.embedding_size - 2


def test_the_table_says_what_its_columns_are(finished: Path):
    schema = table(finished).schema
    assert schema.names == [
        *("key", "place", "bytes", "score", "views_standard_error", "effective_views", "score_error", "precision"),
        *("listing_score", "log_volume_rank", "embedding", "singular_values"),
    ]
    docs = {field.name: field.metadata[b"doc"].decode() for field in schema}
    assert "3 random views" in docs["score"]
    assert "3 random views" in docs["listing_score"]
    assert "jackknife" in docs["views_standard_error"]
    assert "of the image itself" in docs["embedding"]


def test_a_resumed_job_draws_the_same_views(pictures: Path, finished: Path, tmp_path: Path):
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    for part in sorted((output / "scores").glob("part-*"))[1:]:
        part.unlink()
    summary = run_job(tiny_encoder(), open_source(pictures), output, Silent(), OPTIONS)
    assert summary.resumed == 2
    assert table(output).equals(table(finished))


def test_several_processes_write_the_same_table(pictures: Path, finished: Path, tmp_path: Path):
    save_encoder(tiny_encoder(), tmp_path / "tiny")
    done = run_score(
        *(pictures, "--model", tmp_path / "tiny", "--output", tmp_path / "out", "--processes", "2", "--views", "3"),
        *("--seed", "5", "--save", "embedding", "--save", "singular_values", "--batch-size", "8", "--shard-size", "2"),
    )
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out").equals(table(finished))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": 2}, "views: 3 there, 2 now"),
        ({"views": 1, "seed": 0}, "views: 3 there, 1 now"),
        ({"seed": 6}, "view_seed: 5 there, 6 now"),
        ({"view_recipe": ViewRecipe((0.5, 1.0))}, r"view_recipe: .*0\.32.* there, .*0\.5.* now"),
    ],
)
def test_a_job_with_other_views_is_refused(pictures: Path, finished: Path, change: dict, message: str):
    with pytest.raises(jj.JobError, match=message):
        run_job(tiny_encoder(), open_source(pictures), finished, Silent(), dataclasses.replace(OPTIONS, **change))


def test_scores_of_views_compare_with_none_of_the_image_itself(finished: Path):
    views = read_table(finished)
    assert set(views.scores) == {"score", "listing_score"}
    pinned = views.manifest["pinned"]
    assert (pinned["views"], pinned["view_seed"], pinned["view_recipe"]["scale"]) == (3, 5, [0.32, 1.0])
    plain = {"pinned": {**pinned, "views": 1}}
    with pytest.raises(jj.ArgumentError, match="number of views"):
        evaluate(views, [dataclasses.replace(views, name="plain", manifest=plain)])


def test_scores_errors_and_precisions_of_views_are_joined():
    """Two records of three views after the image itself, and two inputs that fill the batch up."""
    rng = np.random.default_rng(0)
    scores, errors = rng.normal(-50, 1, 10), rng.uniform(0, 0.1, 10)
    levels = np.array([4, 3, 3, 1, 4, 3, 3, 4, 0, 0], np.int32)
    result = ScoreResult(
        score=jnp.asarray(scores, jnp.float32),
        score_error=jnp.asarray(errors, jnp.float32),
        clipped=jnp.zeros(10, jnp.int32).at[6].set(3),
        level=jnp.asarray(levels),
        listing_score=jnp.asarray(scores - 20, jnp.float32),
        singular_values=jnp.zeros((10, 5)),
        embedding=jnp.arange(20.0).reshape(10, 2),
        gaussian_score=jnp.asarray(scores - 7, jnp.float32).at[6].set(jnp.nan),
        log_volume_rank=4,
    )
    recipe = InputRecipe(SPEC.preprocess, plain=True, views=VIEWS)
    found = record_columns(result, 2, recipe, ("embedding",))
    each = np.asarray(result.score, np.float64)[[[1, 2, 3], [5, 6, 7]]]
    weights = np.exp(-each) / np.exp(-each).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["score"], -np.log(np.exp(-each).mean(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(found["listing_score"], found["score"] - 20, rtol=1e-6)  # rounded to float32 before
    assert found["gaussian_score"][0] == pytest.approx(found["score"][0] - 7, rel=1e-6)
    assert np.isnan(found["gaussian_score"][1]), "one of its views has none"
    bound = (weights * errors[[[1, 2, 3], [5, 6, 7]]]).sum(axis=1)
    np.testing.assert_allclose(found["score_error"], bound, rtol=1e-6)
    assert list(found["precision"]) == [LEVELS[1], LEVELS[3]]
    np.testing.assert_array_equal(found["embedding"], [[0, 1], [8, 9]])
    assert list(found["log_volume_rank"]) == [4, 4]
    assert list(found["clipped"]) == [0, 3]
    assert "singular_values" not in found


def test_an_image_whose_views_overflow_is_recorded_not_scored(pictures: Path, tmp_path: Path):
    params = initialize_params(SPEC.vit, seed=0)
    params["position_embedding"] = params["position_embedding"] * float("inf")
    summary = run_job(Encoder(SPEC, params), open_source(pictures), tmp_path / "out", Silent(), OPTIONS)
    assert (summary.scored, summary.failed) == (0, 6)
    assert "overflows" in failures(tmp_path / "out")["0.png"]


def test_a_step_holds_whole_images_and_the_dry_run_says_so(pictures: Path, tmp_path: Path):
    step = ExactStep(tiny_encoder(), JobOptions(views=3), 8)
    assert (step.records, step.batch_size) == (2, 6)
    crowded = ExactStep(tiny_encoder(), JobOptions(views=9), 8)
    assert (crowded.records, crowded.batch_size) == (1, 9)
    plan = dry_run(tiny_encoder(), open_source(pictures), tmp_path / "out", OPTIONS)
    console = Console(width=160)
    with console.capture() as shown:
        print_dry_run(console, plan)
    assert "3 of each image by seed 5, crops of 32% to 100%, recoloured; and the image itself" in shown.get()
    assert "8 images a step" in shown.get()
    assert not (tmp_path / "out").exists()


def test_mistakes_are_named():
    with pytest.raises(jj.ArgumentError, match="views=0 must be at least 1"):
        JobOptions(views=0)
    with pytest.raises(jj.ArgumentError, match=r"seed=3 is of random views: give views=2 or more"):
        JobOptions(seed=3)
    with pytest.raises(jj.ArgumentError, match=r"view_recipe is of random views"):
        JobOptions(view_recipe=RECIPES["clip"])
    with pytest.raises(jj.ArgumentError, match=r"batch_size=4 is too small for the 8 views .* batch_size=8 or more"):
        JobOptions(views=8, batch_size=4)
    with pytest.raises(jj.ArgumentError, match=r"8 views of one image and the image itself.*batch_size=9"):
        JobOptions(views=8, batch_size=8, columns=("embedding",))
