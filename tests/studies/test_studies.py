"""Studies: the densities are what they claim, the figures are computed right, and a small study finds the density."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from jepa_jax.studies import controlled, synthetic
from jepa_jax.studies.correlations import rank_correlation
from jepa_jax.studies.densities import (
    Density,
    correlated_gaussian,
    mixture,
    random_mixture,
    ring,
    student,
    two_spirals,
)
from jepa_jax.studies.density_estimators import estimate_log_densities
from jepa_jax.studies.image_world import FACTORS, NEVER, SIZE, draw, world
from jepa_jax.studies.synthetic import WIDE, Cell, fixed, study_run
from jepa_jax.studies.vectors import Recipe
from jepa_jax.training.mlp import MLP
from jepa_jax.training.objectives import LeJEPA


@pytest.mark.parametrize(
    "density", [random_mixture(2), correlated_gaussian(2), ring(), two_spirals(), student(2)], ids=lambda d: d.name
)
def test_a_density_integrates_to_one_and_its_samples_follow_it(density: Density):
    """On a fine grid; and -E[log p] over samples equals the entropy that the grid gives."""
    axis = np.linspace(-14, 14, 561)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    logs = np.concatenate(
        [np.asarray(density.log_density(jnp.asarray(part, jnp.float32))) for part in np.split(grid, 561)]
    )
    mass = np.exp(logs.astype(np.float64)) * (axis[1] - axis[0]) ** 2
    assert mass.sum() == pytest.approx(1.0, abs=0.02)  # a Student distribution has some mass outside
    samples = density.sample(jax.random.key(0), 20_000)
    entropy = -float(np.sum(mass * logs))
    assert -float(density.log_density(samples).mean()) == pytest.approx(entropy, abs=0.06)


def test_log_densities_equal_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) * 2
    means, scales, weights = rng.normal(size=(4, 3)), np.array([0.5, 1, 1.5, 0.7]), np.array([0.1, 0.2, 0.3, 0.4])
    ours = mixture("m", means, scales, weights).log_density(jnp.asarray(x, jnp.float32))
    each = scipy.stats.norm.pdf(x[:, None], means, scales[:, None]).prod(axis=-1)
    assert np.allclose(ours, np.log(each @ weights), rtol=1e-4, atol=1e-4)
    heavy = student(3).log_density(jnp.asarray(x, jnp.float32))
    wanted = scipy.stats.multivariate_t.logpdf(x, None, np.eye(3), 4)  # pyright: ignore[reportArgumentType]
    assert np.allclose(heavy, wanted, rtol=1e-4, atol=1e-4)
    gaussian = correlated_gaussian(3)
    samples = np.asarray(gaussian.sample(jax.random.key(0), 50_000))
    covariance, x = np.cov(samples.T), samples[:50]
    squared = np.einsum("bi,ij,bj->b", x, np.linalg.inv(covariance), x)
    truth = -0.5 * squared - 0.5 * np.log(np.linalg.det(2 * np.pi * covariance))
    assert np.allclose(gaussian.log_density(jnp.asarray(x)), truth, atol=0.15)


def test_baselines_know_a_gaussian():
    rng = np.random.default_rng(0)
    samples, points = rng.normal(size=(2000, 2)), rng.normal(size=(300, 2))
    truth = -0.5 * np.sum(points**2, axis=1)
    for name, values in estimate_log_densities(samples, points).items():
        assert rank_correlation(values, truth) > 0.9, name  # 20 neighbours: 0.22 nats of noise


def test_the_gaussian_score_finds_a_known_density():
    """The reduced study: D = 2, K = 8, one seed, held-out points."""
    found = study_run(Cell(fixed(random_mixture(2)), dataclasses.replace(WIDE, steps=1200)), seed=1)["spearman"]
    assert found["gaussian_score"] >= 0.85
    assert found["gaussian_score"] > found["score"]
    assert min(found[name] for name in ("kde", "knn", "fitted_mixture")) > 0.9 > found["fitted_gaussian"]


def test_the_synthetic_command_writes_its_figures_and_goes_on(tmp_path, monkeypatch: pytest.MonkeyPatch):
    recipe = Recipe(outputs=2, hidden=(8,), steps=5, batch_size=32, criterion=LeJEPA(0.05, 8), residual=True)
    monkeypatch.setattr(synthetic, "cells", lambda: [Cell(fixed(random_mixture(2)), recipe, "K")])
    monkeypatch.setattr(synthetic, "POINTS", 64)
    rows = synthetic.run_synthetic(Console(quiet=True), tmp_path, quick=True)
    document = json.loads((tmp_path / "study.json").read_text())
    assert document["rows"][0]["density"] == "mixture-2d"
    assert {"command", "commit", "versions"} <= document.keys()
    assert "| mixture-2d | K | 2 | LeJEPA |" in (tmp_path / "study.md").read_text()
    assert min((tmp_path / name).stat().st_size for name in ("scatter.png", "ranks.png")) > 1000
    with (tmp_path / "cells.jsonl").open("a") as file:
        file.write('{"part": "cut sho')  # killed while writing
    monkeypatch.setattr(synthetic, "study_run", lambda *_: pytest.fail("computed again"))
    assert synthetic.run_synthetic(Console(quiet=True), tmp_path, quick=True) == rows


def test_a_residual_encoder_starts_near_an_isometry():
    encoder = MLP(3, (64, 64), 5, residual=True)
    jacobian = np.asarray(jax.jacobian(functools.partial(encoder, encoder.init(0)))(jnp.zeros(3)))
    assert np.allclose(np.linalg.svd(jacobian, compute_uv=False), 1.0, atol=0.3)


def test_the_world_is_as_frequent_as_it_says():
    truth = world()
    assert truth.frequencies.sum() == pytest.approx(1.0)
    zero = {tuple(row) for row in truth.combinations[truth.frequencies == 0].tolist()}
    assert zero == set(NEVER)
    assert len(truth.combinations) == np.prod([len(values) for values in FACTORS.values()])
    by_hand = np.prod([FACTORS[name][0] for name in FACTORS])  # the most frequent combination
    missing = sum(np.prod([v[i] for v, i in zip(FACTORS.values(), row, strict=True)]) for row in NEVER)
    assert truth.frequencies.max() == pytest.approx(by_hand / (1 - missing))


def test_pictures_show_their_factors():
    rng = np.random.default_rng(0)
    truth = world()
    pictures = draw(rng, truth.combinations)
    assert pictures.shape == (len(truth.combinations), SIZE, SIZE, 3)
    grounds = pictures[:, 0, 0].mean(axis=1)
    assert grounds[truth.combinations[:, 3] == 0].max() < 80 < 120 < grounds[truth.combinations[:, 3] == 1].min()
    # Saturated pixels are the shape; larger shapes have more of them.
    colored = (np.ptp(pictures.astype(int), axis=-1) > 60).sum(axis=(1, 2))
    small, large = (colored[truth.combinations[:, 2] == value] for value in (0, 1))
    assert large.mean() > 2 * small.mean()


def test_world_figures_rank_by_frequency():
    truth = world()
    perfect = controlled.world_figures(truth, np.log(np.maximum(truth.frequencies, 1e-9)))
    assert perfect["combinations"] == pytest.approx(1.0)
    assert perfect["never seen"] == 1.0
    assert all(perfect[name] == pytest.approx(1.0) for name in FACTORS)
    assert controlled.world_figures(truth, -np.log(np.maximum(truth.frequencies, 1e-9)))[
        "combinations"
    ] == pytest.approx(-1)


def test_a_world_run_goes_from_pictures_to_figures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(controlled, "TRAINING_PICTURES", 256)
    monkeypatch.setattr(controlled, "PICTURES_PER_COMBINATION", 2)
    whole = controlled.recipe
    monkeypatch.setattr(controlled, "recipe", lambda *a: dataclasses.replace(whole(*a), batch_size=64))
    figures = controlled.world_run(0, steps=2)
    assert set(figures) >= {"score, combinations", "gaussian_score, never seen", "score, shape"}
    assert all(-1 <= value <= 1 for value in figures.values())
    low, high = controlled.interval(np.array([0.3, 0.4, 0.5]))
    exact = scipy.stats.t.interval(0.95, 2, loc=0.4, scale=scipy.stats.sem([0.3, 0.4, 0.5]))
    assert (low, high) == pytest.approx(exact)
    assert controlled.interval(np.array([0.7, 0.8, 0.9]))[1] == 1.0  # no correlation is larger
