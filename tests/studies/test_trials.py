"""The trials under studies/: their worlds have the densities they claim, and their statistics are what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scored_sets import SPEC, VIT

import jepa_jax as jj
from jepa_jax.encoders import Encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.studies import image_world
from jepa_jax.studies.quality import Split

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # studies/ is out of the wheel, beside the package

from studies.dual.trial import controls, holds, pair
from studies.known_worlds.diagnostics import against_truth, blind, two_sample, verdict
from studies.known_worlds.worlds import MIXINGS, world
from studies.long_tails.__main__ import by_protocol, rules, summary
from studies.long_tails.kinds import combinations
from studies.messy_pools import keeping
from studies.messy_pools.__main__ import keep
from studies.openood.__main__ import run as run_openood
from studies.openood.presets import BENCHMARKS


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


def test_keeping_trains_on_what_is_kept(monkeypatch: pytest.MonkeyPatch):
    """Two colours as classes: a small network learns them from a part of the pictures, random labels teach nothing."""
    monkeypatch.setattr(keeping, "STEPS", 40)
    monkeypatch.setattr(keeping, "BATCH", 16)
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=300)
    images = rng.integers(0, 256, (300, 32, 32, 3)).astype(np.uint8)
    images[labels == 1, :, :, 0] //= 4
    test = Split(images[200:], labels[200:])
    assert keeping.network(images, labels, np.arange(100), test, 0) > 0.9
    assert keeping.network(images, rng.integers(2, size=300), np.arange(100), test, 0) < 0.75
    values = np.arange(10.0)
    assert keep(values, 10, 0.3, 0).tolist() == [7, 8, 9]
    assert len(keep(None, 10, 0.3, 0)) == 3


def test_openoods_layout_is_read_and_judged(tmp_path: Path):
    """Stand-ins of every list of its cifar10 benchmark, scored and judged by groups."""
    rng = np.random.default_rng(0)
    benchmark = BENCHMARKS["cifar10"]
    for number, images in enumerate((benchmark.training, benchmark.test, *benchmark.near, *benchmark.far)):
        lines = []
        for i in range(24):
            place = Path(images.name) / "test" / f"{number}_{i:02d}.png"
            file = tmp_path / images.folder / place
            file.parent.mkdir(parents=True, exist_ok=True)
            cells = rng.integers(0, 256, (4 + 2 * number, 4, 3), np.uint8)
            Image.fromarray(cells).resize((32, 32)).save(file)
            lines.append(f"{place} {i % 10}\n")
        listed = tmp_path / "benchmark_imglist" / images.file
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(lines))
    encoder = Encoder(SPEC, initialize_params(VIT, 0))
    result = run_openood(encoder, benchmark, tmp_path, tmp_path / "out", images=20)
    assert {row.out for row in result.rows} == {"cifar100", "tin", "mnist", "svhn", "texture", "places365"}
    assert result.find("svhn", "dual").result.count_out == 20
    found = json.loads((tmp_path / "out" / "openood.json").read_text())
    mean = np.mean([result.find(name, "score").result.auroc.value for name in ("cifar100", "tin")])
    assert found["means"]["near"]["score"] == pytest.approx(mean)
    assert "| near |" in (tmp_path / "out" / "openood.md").read_text()
    with pytest.raises(jj.ArgumentError, match=r"must be OpenOOD v1\.5's data folder"):
        BENCHMARKS["imagenet"].test.rows(tmp_path)


def test_openoods_sets_are_version_15s():
    assert [one.name for one in BENCHMARKS["imagenet"].near] == ["ssb_hard", "ninco"]
    assert BENCHMARKS["imagenet200"].test.file == "imagenet200/test_imagenet200.txt"
    assert {one.folder for one in BENCHMARKS["imagenet"].far} == {"images_classic", "images_largescale"}


def test_a_reference_takes_away_what_lies_in_the_pictures():
    kinds, truth = combinations(), image_world.world()
    rng = np.random.default_rng(0)
    frequency = np.log(np.maximum(truth.frequencies, 1e-9))

    def encoders() -> dict[str, dict[str, np.ndarray]]:
        in_the_pictures = 30 * rng.standard_normal(kinds.count)
        pool = frequency + in_the_pictures
        readings: dict[str, np.ndarray] = dict.fromkeys(("score", "gaussian_score", "views", "dual"), pool)
        alone = {"score": in_the_pictures, "gaussian_score": in_the_pictures}
        return {"pool": readings, "longer": readings, "reference": alone, "untrained": alone}

    found = [encoders() for _ in range(3)]
    of_seed = [{rule: kinds.figures(i, means) for rule, means in rules(found, i).items()} for i in range(3)]
    rows = summary(of_seed)
    assert rows["difference"]["frequency"]["mean"] == pytest.approx(1)
    assert rows["difference"]["unseen"]["mean"] == 1
    assert rows["score"]["frequency"]["mean"] < 0.5
    low, high = rows["two references"]["unseen"]["interval"]
    assert low < 0.5 < high
    assert by_protocol(rows, "difference", "unseen").startswith("sees")
    assert by_protocol(rows, "two references", "unseen") == ""
    chance = {"interval": (-0.2, 0.3), "gain": 0.15, "gain_interval": (0.1, 0.2)}  # better than the score alone
    assert by_protocol(rows | {"chance": {"frequency": chance}}, "chance", "frequency") == "helps"
    assert len(kinds.judged(1)) % kinds.count == 0
