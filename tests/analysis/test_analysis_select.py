"""Selections: the guarantees of conformal p-values, the law of the density-balanced draw, and the command's lists."""

import dataclasses
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from s3_server import BUCKET, s3_server
from scipy.stats import binom, chisquare, false_discovery_control
from scored_sets import SPEC, VIT, Quiet, draw_pictures

import jepa_jax as jj
from jepa_jax.analysis.conformal import flagged, p_values
from jepa_jax.analysis.groups import group_names
from jepa_jax.analysis.reference import ReferenceSplit
from jepa_jax.analysis.selection import (
    by_density,
    by_extremes,
    by_p_value,
    by_quantile,
    unsure,
    what_may_be_missed,
)
from jepa_jax.analysis.selection_output import write
from jepa_jax.encoders import Encoder, save_encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.jobs import open_source, run_job
from jepa_jax.paths import names_in, to_path
from jepa_jax.scored.reading import read_table
from jepa_jax.scored.table import ScoreTable


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line; wide enough that no message is wrapped."""
    command = [sys.executable, "-m", "jepa_jax", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False)


def run_in(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, which shows what lands there by mistake."""
    command = [sys.executable, "-m", "jepa_jax", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("side", ["low", "high"])
def test_false_alarms_are_as_many_as_promised(rate: float, ties: bool, side: str):
    """20,000 fresh references of 57, each judging one exchangeable image: alarms are binomial at the nominal rate.

    The interval holds 99.99% of such counts, so that twelve cases fail by chance once in about 800 seeds.
    """
    rng = np.random.default_rng(0)
    trials = 20_000
    scores = rng.standard_t(3, (trials, 58))  # heavy tails: nothing about the distribution is used
    if ties:
        scores = np.round(2 * scores)
    alarms = strict = 0
    for i, row in enumerate(scores):
        judged = row[57:]
        alarms += int(p_values(row[:57], judged, side=side, seed=i)[0] <= rate)  # pyright: ignore[reportArgumentType]
        strict += int(p_values(row[:57], judged, side=side, smoothed=False)[0] <= rate)  # pyright: ignore[reportArgumentType]
    low, high = binom.interval(0.9999, trials, rate)
    assert low <= alarms <= high
    assert strict <= high  # without smoothing the rate is a bound


def test_p_values_are_the_formula():
    reference = np.array([1.0, 2, 2, 3])
    scores = np.array([0.0, 2, 9])
    np.testing.assert_allclose(p_values(reference, scores, smoothed=False), [0.2, 0.8, 1])
    np.testing.assert_allclose(p_values(reference, scores, side="high", smoothed=False), [1, 0.8, 0.2])
    uniform = 1 - np.random.default_rng(4).random(3)
    np.testing.assert_allclose(p_values(reference, scores, seed=4), (np.array([0, 1, 4]) + uniform * [1, 3, 1]) / 5)


def test_the_false_discovery_rate_holds_on_average():
    """100 outliers among 1,000: the mean share of false alarms among alarms is at most 10% of the 90% true nulls."""
    rng = np.random.default_rng(0)
    shares = []
    for i in range(200):
        scores = np.r_[rng.normal(0, 1, 900), rng.normal(-4, 1, 100)]
        p = p_values(rng.normal(0, 1, 1000), scores, seed=i)
        alarms = flagged(p, 0.1, false_discovery=True)
        np.testing.assert_array_equal(alarms, false_discovery_control(p) <= 0.1)
        shares.append(alarms[:900].sum() / max(1, alarms.sum()))
    assert np.mean(shares) <= 0.09 + 4 * np.std(shares) / np.sqrt(200)


def test_the_density_balanced_draw_follows_its_weights():
    """First draws of 6,000 seeds against exp(-score / T): a chi-squared test; then no image comes twice."""
    scores = np.array([-900.0, -901, -902, -903])  # far from zero: exp(-score) would overflow
    firsts = np.array([by_density(scores, 1, 2.0, seed).rows[0] for seed in range(6000)])
    weights = np.exp(-(scores + 900) / 2)
    expected = 6000 * weights / weights.sum()
    assert chisquare(np.bincount(firsts, minlength=4), expected).pvalue > 1e-4
    whole = by_density(scores, 4, 2.0)
    assert sorted(whole.rows) == [0, 1, 2, 3]
    np.testing.assert_allclose(whole.columns["weight"], (weights / weights.sum())[whole.rows], rtol=1e-12)


def test_the_chosen_temperature_makes_half_of_the_images_count():
    scores = np.random.default_rng(0).normal(-300, 40, 5000)
    rule = by_density(scores, 100).rule
    assert rule["effective_images"] == pytest.approx(2500, rel=1e-6)
    # Of a normal spread the effective share is exp(-(spread / T)^2): half of it at T = spread / sqrt(log 2).
    assert rule["temperature"] == pytest.approx(np.std(scores) / np.sqrt(np.log(2)), rel=0.05)
    assert by_density(np.ones(5), 2).rule["temperature"] == 1


def test_quantiles_and_extremes():
    scores = np.array([5.0, 1, 4, 2, 3])
    assert by_quantile(scores, 0.25, 0.75).rows.tolist() == [2, 3, 4]
    assert by_extremes(scores, rarest=2).rows.tolist() == [1, 3]
    assert by_extremes(scores, typical=1).rows.tolist() == [0]
    groups = np.array(["a", "b", "a", "b", "a"], object)
    both = by_extremes(scores, rarest=1, typical=1, groups=groups)
    assert both.rows.tolist() == [4, 0, 1, 3]
    assert by_extremes(scores, rarest=9, typical=9, groups=groups).rows.tolist() == [4, 2, 0, 1, 3]  # none twice


def test_a_reference_never_judges_itself(scored_sets: dict[str, Path]):
    smooth, rough, other = (read_table(scored_sets[name]) for name in ("smooth", "rough", "smooth-other"))
    with pytest.raises(jj.ArgumentError, match="reference images as well"):
        by_p_value(smooth, ReferenceSplit.of(smooth.take(np.arange(30))), 0.1)
    with pytest.raises(jj.ArgumentError, match="do not compare"):
        by_p_value(rough, ReferenceSplit.of(other), 0.1)
    chosen = by_p_value(rough, ReferenceSplit.of(smooth), 0.1)
    assert np.all(chosen.columns["p_value"] <= 0.1)


def test_the_others_are_what_a_rule_leaves(scored_sets: dict[str, Path], tmp_path: Path):
    arguments = ("select", scored_sets["smooth"], "--rarest", "2", "--group-by", "folder", "--output")
    for out, more in ((tmp_path / "chosen", ()), (tmp_path / "left", ("--others",))):
        done = run(*arguments, out, *more)
        assert done.returncode == 0, done.stderr
    chosen, left = (pq.read_table(tmp_path / name / "selection.parquet") for name in ("chosen", "left"))
    whole = read_table(scored_sets["smooth"])
    assert left["key"].to_pylist() == [key for key in whole.keys if key not in chosen["key"].to_pylist()]
    assert left.column_names == ["key", "path", "score", "group", "reason"]
    rule = json.loads((tmp_path / "left" / "selection.json").read_text())
    assert (rule["rarest"], rule["chosen"], rule["chosen_images"]) == (2, "all others", 56)


def test_the_command_writes_lists_that_others_read(scored_sets: dict[str, Path], tmp_path: Path):
    out = tmp_path / "list"
    done = run("select", scored_sets["smooth"], "--output", out, "--rarest", "3", "--typical", "2")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(out / "selection.parquet")
    assert table.column_names == ["key", "path", "score", "group", "rank_in_group", "reason"]
    assert (out / "keys.txt").read_text().splitlines() == table["key"].to_pylist()
    assert all(Path(path).is_file() for path in table["path"].to_pylist())
    rows = table.to_pylist()
    whole = read_table(scored_sets["smooth"])
    for group in ("apples", "pears"):
        members = np.array([key.startswith(group) for key in whole.keys])
        ordered = whole.keys[members][np.argsort(whole.scores["score"][members])]
        assert [row["key"] for row in rows if row["group"] == group] == [*ordered[:3], *ordered[-2:]]
    about = json.loads((out / "selection.json").read_text())
    assert about["of_images"] == 60
    assert about["rule"] == "extremes"
    assert rows[0]["reason"] == "number 1 of 30 from the rarest in apples"
    assert rows[4]["reason"] == "number 1 of 30 from the most typical in apples"
    assert "grouped: 3 and 2 of each of 2 folders (--group-by none: 3 and 2 overall)" in done.stdout
    assert about["context"]["group_by"] == "folder"
    before = (out / "keys.txt").read_bytes()
    again = run("select", scored_sets["smooth"], "--output", out, "--rarest", "1")
    assert again.returncode == 2
    assert "holds keys.txt of an earlier selection; name a new directory" in again.stderr
    assert (out / "keys.txt").read_bytes() == before


def test_groups_are_named_and_left_out_where_they_are_not_wanted(scored_sets: dict[str, Path], tmp_path: Path):
    smooth = scored_sets["smooth"]
    done = run("select", smooth, "--output", tmp_path / "each", "--rarest", "60")
    assert "grouped: 60 of each of 2 folders (--group-by none: 60 overall)" in done.stdout
    assert "Note: all 60 images are listed: nothing is left out." in done.stdout
    assert "typical" not in done.stdout
    done = run("select", smooth, "--output", tmp_path / "overall", "--rarest", "5", "--group-by", "none")
    assert done.stdout.startswith("5 of 60 images")
    assert "  grouped: not grouped" in done.stdout
    assert json.loads((tmp_path / "overall" / "selection.json").read_text())["context"]["group_by"] == "none"
    sharded = read_table(smooth)
    sharded = dataclasses.replace(sharded, keys=np.array([f"shard-{i % 2}.tar/{i}" for i in range(60)], object))
    assert group_names(sharded, None) is None
    names = group_names(sharded, "folder")
    assert names is not None
    assert set(names) == {"shard-0.tar", "shard-1.tar"}


def test_sorting_needs_no_scikit_learn_and_json_is_json(scored_sets: dict[str, Path], tmp_path: Path):
    hidden = "import sys; sys.modules |= dict.fromkeys(('sklearn', 'jinja2')); from jepa_jax.cli import main; main()"
    command = ("select", scored_sets["rough"], "--output", tmp_path / "list", "--between", "0.1", "0.5", "--json")
    done = subprocess.run(
        [sys.executable, "-c", hidden, *map(str, command)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about == json.loads((tmp_path / "list" / "selection.json").read_text())
    assert about["rule"] == "quantile"
    reasons = pq.read_table(tmp_path / "list" / "selection.parquet")["reason"].to_pylist()
    assert all("lies between" in reason for reason in reasons)


def test_where_a_request_can_return_nothing_it_is_said(scored_sets: dict[str, Path]):
    rough, smooth = (read_table(scored_sets[name]) for name in ("rough", "smooth"))
    few = ReferenceSplit.of(smooth)
    (note,) = by_p_value(rough, few, 0.01).notes
    assert note == (
        "60 reference images give p-values in steps of 1/61, which is above the rate 0.01: an image beyond all of "
        "them raises an alarm in 61% of the cases, by a draw, and no other ever does. 99 reference images or "
        "more decide it."
    )
    assert by_p_value(rough, few, 0.02).notes == ()
    (note,) = by_p_value(rough, few, 0.01, false_discovery=True).notes
    assert "about 99 of the 60 images must lie beyond all of them before one raises an alarm" in note
    assert by_extremes(np.arange(5.0), rarest=4, typical=4).notes == (
        "1 group has fewer than 8 images: the rule takes all of them.",
    )


def predicted_table() -> ScoreTable:
    """100 images, scores 0 to 99; every second one is predicted, with an interval of 3 nats on either side."""
    scores = np.arange(100.0)
    predicted = np.arange(100) % 2 == 0
    intervals = np.where(predicted[:, None], np.stack([scores - 3, scores + 3], axis=1), np.nan)
    intervals[40] = [-np.inf, np.inf]
    methods = np.where(predicted, "amortised", "exact").astype(object)
    keys = np.array([f"{i:03d}.png" for i in range(100)], object)
    unfamiliar = np.arange(100) == 40
    return ScoreTable(
        "p", "/p", keys, {"score": scores}, groups={"method": methods}, intervals=intervals, unfamiliar=unfamiliar
    )


def test_what_a_selection_by_predicted_scores_may_have_missed(tmp_path: Path):
    table = predicted_table()
    rarest = by_extremes(table.scores["score"], rarest=10)  # the cut is at 9
    assert unsure(rarest, table).tolist() == [6, 8, 10, 12, 40]
    assert what_may_be_missed(rarest, table) == (
        "50 of 100 scores are predicted from one forward pass. The intervals of 5 reach across the cut: exact scores "
        "may take 2 of the chosen out and 3 others in."
    )
    folder = write(rarest, table, tmp_path / "list")
    assert (folder / "unsure.txt").read_text().split() == ["006.png", "008.png", "010.png", "012.png", "040.png"]
    assert json.loads((folder / "selection.json").read_text())["notes"] == [what_may_be_missed(rarest, table)]
    quantile = by_quantile(table.scores["score"], 0, 0.495)  # the cut is at 49.005; nothing ends at 0
    assert unsure(quantile, table).tolist() == [40, 48, 50, 52]
    drawn = by_density(table.scores["score"], 5)
    assert (what_may_be_missed(drawn, table) or "").endswith("the weights of the draw are as uncertain as these.")
    exact = table.take(~table.predicted)
    assert what_may_be_missed(by_extremes(exact.scores["score"], rarest=3), exact) is None


def test_a_selection_can_be_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    draw_pictures(tmp_path / "photos", 5, seed=0)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for folder in ("apples", "pears"):
            tar.add(tmp_path / "photos" / folder, folder)
    encoder = Encoder(SPEC, initialize_params(VIT, 0))
    save_encoder(encoder, tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)  # inputs are named as in the README: by relative paths
    for place in ("photos", "photos.tar"):
        scores, chosen, again = (f"{place}-{what}" for what in ("scores", "list", "again"))
        run_job(encoder, open_source(place), scores, Quiet())
        done = run("select", scores, "--output", chosen, "--rarest", "3", "--typical", "2", "--group-by", "folder")
        assert done.returncode == 0, done.stderr
        selection = pq.read_table(f"{chosen}/selection.parquet")
        assert ("path" in selection.column_names) == (place == "photos")
        common = ("--model", tmp_path / "encoder", "--output", again, "--workers", "0")
        if place == "photos":
            done = run("score", f"{chosen}/selection.parquet", *common)
        else:
            done = run("score", place, "--keys", f"{chosen}/keys.txt", *common)
        assert done.returncode == 0, done.stderr
        assert "10 images scored, 0 failed" in done.stdout
        table = read_table(again)
        assert table.keys.tolist() == selection["key"].to_pylist()
        np.testing.assert_allclose(table.scores["score"], selection["score"].to_numpy(), rtol=0, atol=1e-4)
    elsewhere = ("--model", tmp_path / "encoder", "--output", "none", "--workers", "0")
    done = run("score", "photos", "--keys", "photos.tar-list/selection.parquet", *elsewhere)
    assert done.returncode == 2
    assert "10 of 10 keys are not in the input photos" in done.stderr


def test_an_image_whose_name_is_no_text_is_selected(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for name in (b"a.png", b"\xff.png"):
        with open(bytes(tmp_path / "photos") + b"/" + name, "wb") as file:
            Image.fromarray(np.full((32, 32, 3), len(name) * 20, np.uint8)).save(file, "PNG")
    run_job(Encoder(SPEC, initialize_params(VIT, 0)), open_source(tmp_path / "photos"), tmp_path / "scores", Quiet())
    done = run("select", tmp_path / "scores", "--output", tmp_path / "list", "--between", "0", "1")
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "list" / "selection.parquet").to_pylist()
    assert {row["key"]: row["path"] for row in rows} == {
        "a.png": str(tmp_path / "photos" / "a.png"),
        "\\xff.png": None,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give exactly one rule"),
        (("--sample", "5", "--rarest", "2"), "give exactly one rule"),
        (("--sample", "500"), "sample=500 must lie between 1 and the number of images, 60"),
        (("--sample", "5", "--temperature", "0"), "temperature=0.0 must be positive"),
        (("--sample", "5", "--rate", "0.1"), "--rate is of --against"),
        (("--rarest", "5", "--temperature", "2"), "--temperature is of --sample"),
        (("--between", "0.9", "0.1"), "two rising shares"),
        (("--between", "10", "90"), "two rising shares between 0 and 1: for percent write 0.1 0.9."),
        (("--against", "ROUGH", "--rate", "2"), "rate=2.0 must lie between 0 and 1"),
        (("--rarest", "2", "--column", "gaussian_score"), "column 'gaussian_score' is none of score, listing_score"),
    ],
)
def test_a_mistake_is_one_clear_message(
    arguments: tuple[str, ...], message: str, scored_sets: dict[str, Path], tmp_path: Path
):
    given = [str(scored_sets["rough"]) if argument == "ROUGH" else argument for argument in arguments]
    done = run("select", scored_sets["smooth"], "--output", tmp_path / "out", *given)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_of_a_selection_that_cannot_be_written_nothing_is_left(scored_sets: dict[str, Path], tmp_path: Path):
    """A limit on the size of files stands for a full disk: keys.txt would fit, the table does not."""
    table = read_table(scored_sets["smooth"])
    chosen = by_extremes(table.scores["score"], rarest=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(jj.JobError, match=r"selection\.parquet cannot be written: File too large"):
            write(chosen, table, tmp_path / "list")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "list").iterdir())
    write(chosen, table, tmp_path / "list")  # the same again is no second selection
    (tmp_path / "file").touch()
    with pytest.raises(jj.JobError, match="file cannot be made a directory"):
        write(chosen, table, tmp_path / "file")


def test_a_selection_and_an_evaluation_are_written_to_a_store(scored_sets: dict[str, Path], tmp_path: Path):
    smooth, rough = (scored_sets[name] for name in ("smooth", "rough"))
    with s3_server():
        done = run_in(tmp_path, "select", smooth, "--output", f"s3://{BUCKET}/list", "--rarest", "3", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(to_path(f"s3://{BUCKET}/list/selection.json").read_text()) == json.loads(done.stdout)
        assert pq.read_table(io.BytesIO(to_path(f"s3://{BUCKET}/list/selection.parquet").read_bytes())).num_rows == 6
        few = ("--resamples", "5", "--complexity-images", "0")
        done = run_in(tmp_path, "evaluate", "--in", smooth, "--out", rough, "--output", f"s3://{BUCKET}/judged", *few)
        assert done.returncode == 0, done.stderr
        names = ["evaluation.json", "evaluation.md", "evaluation.parquet"]
        assert sorted(names_in(to_path(f"s3://{BUCKET}/judged"))) == names
    assert not list(tmp_path.iterdir())
