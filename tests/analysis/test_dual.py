"""The dual test: its law on exchangeable images, its formula, its bar on published spectra, and inverted scores."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom, multivariate_normal, norm

import jepa_jax as jj
from jepa_jax.analysis.dual import (
    DUAL_TESTS,
    LARGEST_JOINT_FIT,
    DualTest,
    Fit,
    coordinates,
    fit_dual,
    fit_points,
    table_coordinates,
)
from jepa_jax.analysis.evaluation import ALARM_RATE, Options, evaluate
from jepa_jax.analysis.metrics import auroc
from jepa_jax.analysis.reference import ReferenceSplit, hold_out
from jepa_jax.analysis.selection import by_p_value
from jepa_jax.scored.reading import read_table
from jepa_jax.scored.table import ScoreTable

NONE = ReferenceSplit(ScoreTable("none", "/none", np.array([], object), {}), frozenset())


def table_at(name: str, points: np.ndarray, length: int = 16) -> ScoreTable:
    """A table of spectra that have these scores and effective ranks [N, 2], made by two numbers each."""
    steepness = np.linspace(0, 3, 4001)
    profiles = -steepness[:, None] * np.linspace(0, 1, length)
    ranks = coordinates(np.zeros(4001), np.exp(profiles))[:, 1]
    chosen = np.interp(points[:, 1], ranks[::-1], steepness[::-1])
    logs = -chosen[:, None] * np.linspace(0, 1, length)
    logs += (points[:, :1] - logs.sum(axis=1, keepdims=True)) / length
    spectra = np.exp(logs)
    return ScoreTable(
        name=name,
        origin=f"/images/{name}",
        keys=np.array([f"{i}.png" for i in range(len(points))], object),
        scores={"score": np.log(spectra).sum(axis=1)},
        singular_values=spectra.astype(np.float32),
    )


def drawn(name: str, count: int, shift: tuple[float, float], seed: int) -> ScoreTable:
    """A set whose score and log effective rank are moved by so many standard deviations."""
    rng = np.random.default_rng(seed)
    return table_at(name, np.array([40.0, 2.6]) + [10.0, 0.03] * (rng.standard_normal((count, 2)) + shift))


@pytest.mark.parametrize("name", DUAL_TESTS)
@pytest.mark.parametrize(("size", "trials"), [(37, 4000), (LARGEST_JOINT_FIT + 60, 1000)])
def test_false_alarms_are_as_many_as_promised(name: str, size: int, trials: int):
    """Fresh references, each judging one exchangeable image: alarms are binomial at the nominal rate.

    Heavy-tailed, dependent and rounded, so that nothing of the fitted law is true. The interval holds 99.99% of such
    counts: twelve of them fail by chance once in about 800 seeds.
    """
    rng = np.random.default_rng(0)
    alarms = {0.01: 0, 0.05: 0, 0.2: 0}
    strict = dict(alarms)
    for i in range(trials):
        points = rng.standard_t(2, (size + 1, 2))
        points[:, 1] = np.round(points[:, 1] + points[:, 0] ** 2, 1)
        test = DualTest.of_points(points[:-1], NONE, name)
        smooth, step = (test.p_values_at(points[-1:], smoothed=s, seed=i)[0] for s in (True, False))
        for rate in alarms:
            alarms[rate] += int(smooth <= rate)
            strict[rate] += int(step <= rate)
    for rate, count in alarms.items():
        low, high = binom.interval(0.9999, trials, rate)
        assert low <= count <= high, rate
        assert strict[rate] <= high  # without smoothing the rate is a bound


def test_p_values_are_ranks_among_all_with_a_fit_of_all():
    rng = np.random.default_rng(1)
    reference, judged = rng.standard_normal((41, 2)), rng.standard_normal((7, 2)) * 2
    for name, unusual in DUAL_TESTS.items():
        expected = []
        for point in judged:
            together = np.r_[reference, point[None]]
            values = unusual(together, fit_points(together))
            expected.append(np.sum(values >= values[-1]) / 42)
        test = DualTest.of_points(reference, NONE, name)
        np.testing.assert_allclose(test.p_values_at(judged, smoothed=False), expected, rtol=1e-12)
        again = DualTest.of_points(reference[rng.permutation(41)], NONE, name).p_values_at(judged, smoothed=False)
        np.testing.assert_allclose(again, expected, rtol=1e-12)


def test_the_statistics_are_their_formulas():
    points = np.random.default_rng(2).standard_normal((9, 2)) * 2
    fit = Fit(np.array([[0.5, -1.0]]), np.array([[2.0, 0.5]]), np.array([0.6]))
    z = (points - [0.5, -1.0]) / [2.0, 0.5]
    correlation = np.array([[1.0, 0.6], [0.6, 1.0]])
    total = np.zeros(9)
    for first, one in ((-1, 0.7), (1, 0.1), (0, 0.2)):
        for second, two in ((-1, 0.7), (1, 0.1), (0, 0.2)):
            moved = correlation + np.diag([first != 0, second != 0])
            law = multivariate_normal([first, second], moved)  # pyright: ignore[reportArgumentType]
            total += one * two * law.pdf(z)
    null = multivariate_normal([0, 0], correlation)  # pyright: ignore[reportArgumentType]
    expected = np.log(total / null.pdf(z))
    np.testing.assert_allclose(DUAL_TESTS["dual"](points, fit), expected, rtol=1e-10)
    np.testing.assert_allclose(DUAL_TESTS["dual_one_sided"](points, fit), -norm.logcdf(z).sum(axis=1), rtol=1e-10)


def test_one_sided_falls_in_both_coordinates_and_two_sided_rises_far_out():
    line = np.linspace(-6, 6, 49)
    fit = Fit(np.zeros((1, 2)), np.ones((1, 2)), np.array([0.5]))
    for column in (0, 1):
        points = np.zeros((49, 2))
        points[:, column] = line
        assert np.all(np.diff(DUAL_TESTS["dual_one_sided"](points, fit)) < 0)
        two = DUAL_TESTS["dual"](points, fit)
        assert two[0] > two[24] + 3
        assert two[-1] > two[24] + 3
        assert two[0] > two[-1]  # it leans: low counts sooner


@pytest.mark.parametrize("model", ["vits14", "vitb14"])
def test_on_published_spectra_it_is_no_worse_than_its_better_part(spectra: Path, model: str):
    inside, outside = (
        read_table(spectra / f"dinov2_{model}_{name}.npz", null_directions=2) for name in ("cifar10", "svhn")
    )
    for seed in range(3):
        result = evaluate(inside, [outside], options=Options(resamples=20, seed=seed))
        rows = {row.statistic: row for row in result.rows}
        parts = [rows[name].result.auroc.value for name in ("score", "effective_rank")]
        for name in DUAL_TESTS:
            assert rows[name].result.auroc.value >= max(parts) - 0.03, (name, seed)
            alarms = rows[name].alarms
            assert alarms is not None
            assert alarms.share_in <= 0.05 + 4 * np.sqrt(0.05 * 0.95 * (1 / 125 + 1 / 125))
            assert alarms.share_out > 0.5


def test_the_other_way_round_the_score_inverts_and_the_dual_does_not(spectra: Path):
    inside, outside = (
        read_table(spectra / f"dinov2_vits14_{name}.npz", null_directions=2) for name in ("svhn", "cifar10")
    )
    split, judged = hold_out(inside, 0.5)
    assert auroc(judged.scores["score"], outside.scores["score"]) < 0.2
    test = fit_dual(split)
    assert auroc(test.score(judged), test.score(outside)) > 0.7


@pytest.mark.parametrize(
    ("shift", "least"),
    [
        ((3.0, -1.8), 0.95),  # the score inverted (.02), the effective rank right (.90)
        ((3.0, 0.7), 0.75),  # both inverted, the score strongly
        ((-3.0, 0.7), 0.93),  # the effective rank inverted (.31), the score right (.98)
        ((-1.0, -1.0), 0.76),  # both weak (.76)
        ((0.0, 0.0), 0.40),  # nothing to be seen
    ],
)
def test_neither_coordinate_drags_the_other_down(shift: tuple[float, float], least: float):
    reference, judged, out = drawn("ref", 200, (0, 0), 0), drawn("in", 400, (0, 0), 1), drawn("out", 400, shift, 2)
    test = fit_dual(ReferenceSplit.of(reference))
    found = auroc(test.score(judged), test.score(out))
    assert found >= least
    assert abs(found - auroc(test.p_values(judged), test.p_values(out))) < 0.03
    if shift == (0.0, 0.0):
        assert found <= 0.60


def test_what_a_null_direction_holds_changes_nothing():
    """Two more singular values of rounding noise, left out: the same coordinates."""
    table = drawn("set", 30, (0, 0), 0)
    assert table.singular_values is not None
    noise = np.random.default_rng(0).uniform(1e-7, 1e-6, (30, 2)).astype(np.float32)
    noisy = ScoreTable(
        "noisy", "/noisy", table.keys, table.scores, 2, np.concatenate([table.singular_values, noise], axis=1)
    )
    np.testing.assert_array_equal(table_coordinates(table), table_coordinates(noisy))


def test_its_mistakes_say_what_to_do():
    table = drawn("set", 40, (0, 0), 0)
    with pytest.raises(jj.ArgumentError, match="40 of 40 images of 'set' are reference images"):
        fit_dual(ReferenceSplit.of(table)).p_values(table)
    with pytest.raises(jj.ArgumentError, match="the reference has 19 images; the dual test needs 20"):
        fit_dual(ReferenceSplit.of(table.take(np.arange(19))))
    with pytest.raises(jj.ArgumentError, match=r"'dual_low' is unknown; use one of dual, dual_one_sided"):
        fit_dual(ReferenceSplit.of(table), "dual_low")
    with pytest.raises(jj.ArgumentError, match="score is the same for half of the reference's 40 images"):
        fit_dual(ReferenceSplit.of(table.take(np.zeros(40, int))))
    bare = ScoreTable("bare", "/bare", table.keys, table.scores)
    with pytest.raises(jj.ArgumentError, match="--save singular_values"):
        fit_dual(ReferenceSplit.of(bare))
    with pytest.raises(jj.ArgumentError, match="side='high' does not go with dual"):
        by_p_value(drawn("b", 9, (0, 0), 1), ReferenceSplit.of(table), 0.1, column="dual", side="high")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line; wide enough that no message is wrapped."""
    command = [sys.executable, "-m", "jepa_jax", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False)


def test_the_commands_offer_it(scored_sets: dict[str, Path], tmp_path: Path):
    shown = run("evaluate", "--in", scored_sets["smooth"], "--out", scored_sets["rough"], "--resamples", "20")
    assert shown.returncode == 0, shown.stderr
    assert f"dual: p <= {ALARM_RATE:g} for" in shown.stdout
    done = run(
        *("select", scored_sets["rough"], "--against", scored_sets["smooth"], "--rate", "0.1", "--column", "dual"),
        *("--output", tmp_path / "list"),
    )
    assert done.returncode == 0, done.stderr
    chosen = pq.read_table(tmp_path / "list" / "selection.parquet")
    table, reference = (read_table(scored_sets[name]) for name in ("rough", "smooth"))
    p = fit_dual(ReferenceSplit.of(reference)).p_values(table)
    assert chosen["key"].to_pylist() == table.keys[p <= 0.1].tolist()
    np.testing.assert_array_equal(chosen["p_value"].to_numpy(), p[p <= 0.1])
    wrong = run("select", scored_sets["rough"], "--output", tmp_path / "none", "--rarest", "2", "--column", "dual")
    assert wrong.returncode == 2
    assert "column 'dual' compares with a reference: give --against REFERENCE, or another column" in wrong.stderr
