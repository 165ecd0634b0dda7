"""The trials under studies/: their worlds have the densities they claim, and their statistics are what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # studies/ is out of the wheel, beside the package

from studies.dual.trial import controls, holds, pair
from studies.known_worlds.diagnostics import against_truth, blind, two_sample, verdict
from studies.known_worlds.worlds import MIXINGS, world


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("size", [2, 6])
def test_a_worlds_log_determinant_is_that_of_its_jacobian(mixing: str, size: int):
    place = world(mixing, size, seed=1)
    latents = place.draw(jax.random.key(0), 20)
    jacobians = jax.vmap(jax.jacfwd(lambda s: place.mix(s[None])[0][0]))(latents)
    expected = np.linalg.slogdet(np.asarray(jacobians, np.float64))[1]
    np.testing.assert_allclose(place.mix(latents)[1], expected, atol=2e-4)


@pytest.mark.parametrize("latents", ["normal", "laplace"])
def test_views_have_the_latents_own_law_and_are_alike(latents: str):
    place = world("sinusoid", 4, seed=0, latents=latents)
    first = place.draw(jax.random.key(0), 20_000)
    second = place.partner(first, jax.random.key(1))
    for some in (first, second):
        assert np.allclose(np.std(some, axis=0), 1, atol=0.05)
    fourth = 3.0 if latents == "normal" else 6.0
    assert np.mean(np.asarray(second) ** 4) == pytest.approx(fourth, rel=0.1)
    correlations = [np.corrcoef(first[:, i], second[:, i])[0, 1] for i in range(4)]
    assert np.allclose(correlations, 0.9, atol=0.02)


def test_a_classifier_tells_what_is_not_normal_and_does_not_tell_what_is():
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((4000, 8))
    assert abs(two_sample(normal) - 0.5) < 0.04
    assert two_sample(1.3 * normal) > 0.6
    assert two_sample(rng.standard_t(3, (4000, 8)) / np.sqrt(3)) > 0.6
    found = blind(normal.astype(np.float32), np.r_[np.ones(98), -np.ones(2)])
    assert found["folding"] == pytest.approx(0.02)
    assert found["sigreg"] < 3


def test_verdicts_are_the_protocols():
    truth = np.random.default_rng(0).normal(-5, 2, 1000)
    right = against_truth(truth + np.random.default_rng(1).normal(0, 0.1, 1000), truth)
    assert verdict(right, 2.0) == "estimates"
    low, high = right["intervals"]["slope"]
    assert low < 1 < high
    assert verdict(against_truth(truth + 3, truth), 2.0) == "between"
    assert verdict(against_truth(2 * truth, truth), 2.0) == "breaks"
    assert verdict(against_truth(np.random.default_rng(2).normal(size=1000), truth), 2.0) == "breaks"


def test_regret_is_against_the_better_part_and_controls_show_nothing():
    rng = np.random.default_rng(0)
    inside, outside = rng.standard_normal((300, 2)), rng.standard_normal((300, 2)) - [3.0, 0.0]
    row = pair(inside, outside, splits=2)
    assert row["auroc"]["score"] > 0.97
    assert row["regret"]["score"] == 0
    assert row["regret"]["effective_rank"] < -0.4
    assert holds({"one": row})["dual"]["holds"] == 1
    for values in controls(rng.standard_normal((600, 2))).values():
        assert all(abs(value - 0.5) < 0.1 for value in values.values())
    assert jnp.isfinite(row["regret"]["dual"])
