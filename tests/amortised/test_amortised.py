"""Amortised scores: features are those of a plain forward pass, promises hold, what is stored is the same again."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from makes import MAKES, PLAIN, TOLERANCE, loud_params, relative
from scipy.stats import binom

import jepa_jax as jj
from jepa_jax.amortised import Amortised, feature_count, feature_stream, features, fit_amortised
from jepa_jax.amortised.escalation import Calibration, escalation, recall_bound
from jepa_jax.amortised.intervals import conformal_quantile, least_calibration
from jepa_jax.amortised.unfamiliar import familiarity, fit_distance
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.encoders.parameters import initialize_params


def encoder_of(vit: ViTSpec, seed: int | None = None) -> Encoder:
    params = loud_params(vit, "float32") if seed is None else initialize_params(vit, seed)
    return Encoder(EncoderSpec("small", "vit", vit, PreprocessSpec(resize_shortest=16, crop=16)), params)


def drawn(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoder_of(PLAIN)


@pytest.fixture(scope="module")
def head(encoder: Encoder) -> Amortised:
    """Fitted on made-up scores: linear in the features, with a noise that grows along them."""
    found, scores = made_up(encoder, 400)
    return fit_amortised(encoder, None, scores, features=found)


def made_up(encoder: Encoder, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((count, feature_count(encoder))).astype(np.float32)
    scores = 10 * found[:, 0] + 3 * found[:, 1] + np.exp(0.5 * found[:, 0]) * rng.standard_normal(count)
    return found, scores


def test_predictions_print_as_a_short_table(encoder: Encoder, head: Amortised):
    found, _ = made_up(encoder, 12, seed=1)
    scores = head.predict_features(np.concatenate([found, 1e3 + found[:1]]))
    lines = repr(scores).splitlines()
    assert lines[0] == f"AmortisedScores: 13 images, {scores.unfamiliar.sum()} unfamiliar; nats"
    assert lines[1].split() == ["score", "score_low", "score_high", "unfamiliar"]
    assert lines[2].split() == [
        "0",
        *(f"{x[0]:,.2f}" for x in (scores.score, scores.score_low, scores.score_high)),
        "False",
    ]
    assert lines[-1].split()[0] == "12"
    assert lines[-1].split()[2:] == ["-inf", "inf", "True"]


@pytest.mark.parametrize("make", ["class token", "patch mean", "pre-norm, quick GELU, projection"])
def test_features_are_the_moments_of_a_plain_forward_pass(make: str):
    encoder, images = encoder_of(MAKES[make]), drawn(3)
    with jax.default_matmul_precision("highest"):
        stages = {
            name: np.asarray(value) for name, value in encoder.module().intermediates(jnp.asarray(images)).items()
        }
    expected = []
    for number in range(encoder.spec.vit.depth):
        tokens = stages[f"block_{number}"].astype(np.float64)
        expected += [tokens.mean(axis=1), tokens.std(axis=1)]
        if encoder.spec.vit.pooling == "class_token":
            expected.append(tokens[:, 0])
    expected = np.concatenate([*expected, stages["embedding"]], axis=1)
    found = features(encoder, images)
    assert (found.dtype, found.shape) == (np.float32, (3, feature_count(encoder)))
    assert relative(jnp.asarray(found), jnp.asarray(expected, jnp.float32)) < TOLERANCE["float32"]


def test_features_are_streamed_in_batches_of_any_size(encoder: Encoder):
    images = drawn(70)  # more than a call takes
    whole = features(encoder, images)
    parts = list(feature_stream(encoder, [images[:1], images[1:1], images[1:68], images[68:]]))
    assert [len(part) for part in parts] == [1, 67, 2]
    np.testing.assert_array_equal(np.concatenate(parts), whole)  # the same program, of one size
    assert features(encoder, images[:0]).shape == (0, feature_count(encoder))


def test_intervals_cover_as_often_as_they_say(encoder: Encoder):
    """Given the calibration, coverage is distributed as Beta(k, m + 1 - k); over 20 draws its mean as if by 20 m."""
    calibrating, draws, coverages, of_unfamiliar = 120, 20, [], []
    for seed in range(draws):
        found, scores = made_up(encoder, 1400, seed)
        head = fit_amortised(encoder, None, scores[:400], features=found[:400], seed=seed)
        assert len(head.calibration.exact) == calibrating
        predicted = head.predict_features(found[400:])
        of_unfamiliar.append(np.mean(predicted.unfamiliar))
        assert np.all(np.isinf(predicted.score_high[predicted.unfamiliar]))
        assert np.all(np.isinf(predicted.score_low[predicted.unfamiliar]))
        inside = (scores[400:] >= predicted.score_low) & (scores[400:] <= predicted.score_high)
        coverages.append(np.mean(inside))
    # Five standard deviations of a mean of 20 such shares, and at most the alarm's rate above: infinite intervals.
    deviation = 5 * np.sqrt(0.9 * 0.1 / draws * (1 / calibrating + 1 / 1000))
    assert 0.9 - deviation < np.mean(coverages) < 0.95 + deviation
    assert np.mean(of_unfamiliar) < 0.05 + 5 * np.sqrt(0.05 * 0.95 / draws * (1 / calibrating + 1 / 1000))


def test_intervals_are_wider_where_scores_are_harder_to_tell(encoder: Encoder):
    found, scores = made_up(encoder, 3000, 5)
    head = fit_amortised(encoder, None, scores[:2000], features=found[:2000])
    predicted = head.predict_features(found[2000:])
    width = predicted.score_high - predicted.score_low
    hard = found[2000:, 0] > 1
    assert np.median(width[hard]) > 1.5 * np.median(width[~hard])


def test_a_quantile_is_the_rank_that_finite_samples_take():
    values = np.arange(1.0, 20.0)  # 19 of them
    assert conformal_quantile(values, 0.9) == 18  # of 20
    assert conformal_quantile(values, 0.95) == 19
    assert conformal_quantile(values, 0.96) == np.inf
    assert least_calibration(0.9) == 9
    assert np.isfinite(conformal_quantile(values[:9], 0.9))
    assert np.isinf(conformal_quantile(values[:8], 0.9))


def test_a_distance_left_out_is_that_of_a_fit_without_the_image():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 6)) * [5, 4, 3, 2, 0.1, 0.1]
    distance, left_out = fit_distance(z)
    slow = []
    for i in range(20):
        others = np.delete(z, i, axis=0)
        slow.append(z[i] @ np.linalg.solve(others.T @ others / 200, z[i]))
    # All five directions of 6 have variances of their own, and the sixth alone is the rest: this is Mahalanobis'.
    np.testing.assert_allclose(left_out[:20], slow, rtol=1e-9)
    assert np.isinf(distance(np.full((1, 6), np.nan)))
    np.testing.assert_array_equal(familiarity(np.array([1.0, 2, 3]), np.array([0.5, 2, 4])), [1, 0.75, 0.25])


def test_an_image_unlike_the_others_is_flagged(head: Amortised, encoder: Encoder):
    found, _ = made_up(encoder, 100, 9)
    assert np.mean(head.predict_features(found).unfamiliar) < 0.3
    assert np.all(head.predict_features(found * 4).unfamiliar)
    found[0, 3] = np.nan
    predicted = head.predict_features(found)
    assert np.isnan(predicted.score[0])
    assert predicted.unfamiliar[0]
    assert (predicted.score_low[0], predicted.score_high[0]) == (-np.inf, np.inf)


def sample_of(rng: np.random.Generator, count: int) -> Calibration:
    """Predictions as a regression makes them: the expected exact score, so that residuals do not hang on them."""
    exact, elsewhere = rng.standard_normal(count), rng.standard_normal(count)
    predicted = (exact + 0.3 * rng.standard_normal(count)) / (1 + 0.3**2)
    return Calibration(exact, predicted, np.full(count, 0.3), elsewhere)


@pytest.mark.parametrize("between", [(0.0, 0.2), (0.8, 1.0), (0.4, 0.6)])
def test_a_promised_recall_is_kept(between: tuple[float, float]):
    """In 200 draws it fails for no more than the binomial's upper 1e-6 quantile at the promised risk."""
    rng, draws = np.random.default_rng(1), 200
    truth = sample_of(rng, 40_000)
    low, high = np.quantile(truth.exact, between)
    tail = (truth.exact >= low) & (truth.exact <= high)
    failed, shares = 0, []
    for _ in range(draws):
        rule = escalation(sample_of(rng, 600), between, recall=0.9, confidence=0.9)
        assert rule.promised
        rows = rule.rows(truth.predicted)
        shares.append(np.mean(rows))
        failed += np.mean(rows[tail]) < 0.9
    assert failed <= binom.ppf(1 - 1e-6, draws, 0.1)
    assert np.mean(shares) < 0.65  # of a band with two edges; of one end a third: by no means everything


def test_a_sample_too_small_promises_nothing_and_says_what_it_takes():
    rng = np.random.default_rng(2)
    rule = escalation(sample_of(rng, 600), (0, 0.01))
    assert not rule.promised
    assert rule.expected_recall >= 0.95
    assert 6_000 < rule.calibration_needed < 7_000
    assert not escalation(sample_of(rng, rule.calibration_needed - 1), (0, 0.01)).promised
    assert escalation(sample_of(rng, rule.calibration_needed), (0, 0.01)).promised


def test_the_bound_of_a_given_rule_holds():
    rng, draws, failed = np.random.default_rng(3), 200, 0
    truth = sample_of(rng, 40_000)
    tail = truth.exact <= np.quantile(truth.exact, 0.2)
    limit = np.quantile(truth.predicted, 0.25)
    true_recall = np.mean(truth.predicted[tail] <= limit)
    expected = []
    for _ in range(draws):
        sample = sample_of(rng, 400)
        promised, estimated = recall_bound(sample, (0, 0.2), sample.predicted <= limit, 0.9)
        failed += promised > true_recall
        expected.append(estimated)
    assert failed <= binom.ppf(1 - 1e-6, draws, 0.1)
    assert abs(np.mean(expected) - true_recall) < 0.02


def test_escalation_of_a_head(head: Amortised, encoder: Encoder):
    found, _ = made_up(encoder, 1000, 4)
    predicted = head.predict_features(found).score
    rule = head.escalate(predicted, share=0.2, recall=0.8, confidence=0.8)
    assert rule.promised
    assert rule.share == np.mean(rule.rows(predicted))
    assert rule.rows(np.array([np.nan, -1e9, 1e9])).tolist() == [True, True, False]
    assert head.escalate(tail="highest", share=0.2).rows(np.array([-1e9, 1e9])).tolist() == [False, True]
    promised, expected = head.recall(0.3, share=0.2)
    assert 0 <= promised <= expected <= 1


def test_what_is_saved_predicts_the_same_bit_by_bit(head: Amortised, encoder: Encoder, tmp_path: Path):
    head.save(tmp_path / "head")
    again = jj.Amortised.load(tmp_path / "head", encoder)
    assert again.digest == head.digest
    found, _ = made_up(encoder, 50, 7)
    for name, value in vars(head.predict_features(found)).items():
        np.testing.assert_array_equal(getattr(again.predict_features(found), name), value)
    assert again.escalate() == head.escalate()
    with pytest.raises(jj.ArgumentError, match=r"is not empty; name a new one\.$"):
        head.save(tmp_path / "head")
    other = encoder_of(PLAIN, seed=1)
    with pytest.raises(jj.ArgumentError, match=r"give the same one, or fit another\.$"):
        Amortised.load(tmp_path / "head", other)


def test_what_is_damaged_is_refused(head: Amortised, encoder: Encoder, tmp_path: Path):
    head.save(tmp_path)
    (arrays,), description = tmp_path.glob("arrays-*.safetensors"), tmp_path / "amortised.json"
    whole, said = arrays.read_bytes(), json.loads(description.read_text())
    changed = bytearray(whole)
    changed[-3] ^= 1
    for content in (bytes(changed), whole[:-8], whole[:20], b""):
        arrays.write_bytes(content)
        with pytest.raises(jj.CheckpointError, match=r"fit it again\.$"):
            Amortised.load(tmp_path, encoder)
    arrays.write_bytes(whole)
    settings = said["settings"]
    for other in ({"format_version": 2}, {"settings": settings | {"coverage": 0.5}}, {"digest": 3}, {"encoder": None}):
        description.write_text(json.dumps(said | other))
        with pytest.raises(jj.CheckpointError):
            Amortised.load(tmp_path, encoder)
    description.write_text("[")
    with pytest.raises(jj.CheckpointError, match=r"amortised\.json cannot be read"):
        Amortised.load(tmp_path, encoder)


def test_it_predicts_exact_scores_of_images(encoder: Encoder):
    """From pictures to predictions, once, with the scores that the encoder really has."""
    rng = np.random.default_rng(0)
    images = drawn(160) * rng.uniform(0.2, 2, (160, 1, 1, 1)).astype(np.float32)
    scores = np.asarray(jj.score(encoder, images, spectrum=False).score)
    head = jj.fit_amortised(encoder, images[:120], scores[:120])
    found = head(images[120:])
    assert np.corrcoef(found.score, scores[120:])[0, 1] > 0.9
    same = head.predict_features(features(encoder, images[120:]))
    np.testing.assert_array_equal(found.score, same.score)


def test_refusals_name_the_argument(encoder: Encoder, head: Amortised):
    found, scores = made_up(encoder, 100)
    images = drawn(100)
    broken = np.where(np.arange(100) == 3, np.nan, scores)
    for arguments, options, message in (
        ((lambda batch: batch, images, scores), {}, "encoder is a function"),
        ((encoder, None, scores), {}, "images=None"),
        ((encoder, images, scores), {"features": found}, "both given"),
        ((encoder, images.astype(np.uint8), scores), {}, "images are uint8"),
        ((encoder, images[0], scores), {}, "images are float32"),
        ((encoder, None, scores[:-1]), {"features": found}, "scores has 99 values for 100"),
        ((encoder, None, scores[:, None]), {"features": found}, "scores have shape"),
        ((encoder, None, broken), {"features": found}, "1 of 100 are not finite"),
        ((encoder, None, scores), {"features": found[:, :-1]}, "features have shape"),
        ((encoder, None, scores), {"features": np.where(found > 3, np.inf, found)}, "features that are not finite"),
        ((encoder, None, scores), {"features": found, "coverage": 1.0}, "coverage=1.0"),
        ((encoder, None, scores), {"features": found, "coverage": 0.99}, "images: 100 are too few"),
        ((encoder, None, scores[:40]), {"features": found[:40]}, "images: 40 are too few"),
    ):
        with pytest.raises(jj.ArgumentError, match=message):
            fit_amortised(*arguments, **options)  # pyright: ignore[reportArgumentType]
    for refused, message in (
        (lambda: head.escalate(share=0), "share=0"),
        (lambda: head.escalate(tail="low"), "tail='low'"),  # pyright: ignore[reportArgumentType]
        (lambda: head.escalate(tail=(0.5, 0.2)), "between="),
        (lambda: head.escalate(recall=1), "recall=1"),
        (lambda: head.recall(0), "rows=0"),
        (lambda: head.recall(0.1, tail=(0.2, 0.3)), "two ends"),
    ):
        with pytest.raises(jj.ArgumentError, match=message):
            refused()
