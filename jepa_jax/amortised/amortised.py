"""An amortised score: fitted on images that were scored exactly, it predicts others' scores from one forward pass."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np

from jepa_jax.amortised import stored
from jepa_jax.amortised.escalation import Calibration, Escalation, escalation, recall_bound
from jepa_jax.amortised.features import feature_count, features, require_encoder
from jepa_jax.amortised.intervals import LocalScale, conformal_quantile, fit_scale, least_calibration
from jepa_jax.amortised.predictor import Ridge, Standard, fit_ridge, fit_standard
from jepa_jax.amortised.unfamiliar import Distance, familiarity, fit_distance
from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.short_table import short_table

FIT_SHARE = 0.7
"""Of the scored images the predictor is fitted on; the others calibrate."""

ALARM_RATE = 0.05
"""Share of familiar images that may be called unfamiliar."""

LEAST_FIT = 32
"""Images that a fit takes. So few predict little, which the intervals say."""

Tail = Literal["lowest", "highest"]


@dataclass(frozen=True, repr=False)
class AmortisedScores:
    """What one forward pass says of images, float64 and bool [B]. Prints as a short table.

    Attributes:
        score: predicted, nats; NaN where an image is not finite.
        score_low: lower end of the interval, nats. It holds the exact score for a share ``coverage`` of images drawn
            like the calibration's. For unfamiliar images nothing is known: the interval is infinite.
        score_high: upper end of the interval, nats.
        unfamiliar: whether an image is unlike the calibration's, by a test that is wrong for ``alarm_rate`` of images
            that are like them.
    """

    score: np.ndarray
    score_low: np.ndarray
    score_high: np.ndarray
    unfamiliar: np.ndarray

    def __repr__(self) -> str:
        images, unfamiliar = len(self.score), int(np.sum(self.unfamiliar))
        title = f"AmortisedScores: {images:,} image{'s' * (images != 1)}, {unfamiliar:,} unfamiliar; nats"
        return f"{title}\n{short_table(vars(self))}"


@dataclass(frozen=True)
class Settings:
    """How an amortised score was fitted.

    Attributes:
        coverage: of the intervals.
        alarm_rate: share of familiar images that is called unfamiliar.
        seed: of the split into fit and calibration.
    """

    coverage: float = 0.9
    alarm_rate: float = ALARM_RATE
    seed: int = 0


@dataclass(frozen=True)
class Amortised:
    """A predictor of one encoder's exact scores, its intervals, and its alarm. See `fit_amortised`.

    Attributes:
        encoder: whose scores are predicted.
        settings: how it was fitted.
        standard: of the features.
        ridge: from features to the score.
        distance: of features, for the alarm and the intervals.
        local_scale: of residuals.
        calibration: what intervals and escalation are calibrated on.
        calibration_distances: [n] of the same images.
    """

    encoder: Encoder
    settings: Settings
    standard: Standard
    ridge: Ridge
    distance: Distance
    local_scale: LocalScale
    calibration: Calibration
    calibration_distances: np.ndarray

    def __call__(self, images: np.ndarray | jax.Array) -> AmortisedScores:
        """As `predict`."""
        return self.predict(images)

    def predict(self, images: np.ndarray | jax.Array) -> AmortisedScores:
        """Scores of preprocessed images [B, H, W, 3], by one forward pass.

        Raises:
            ArgumentError: images are no batch of the encoder's.
        """
        return self.predict_features(features(self.encoder, images))

    def predict_features(self, found: np.ndarray) -> AmortisedScores:
        """The same, of features [B, F] that `jepa_jax.amortised.features` computed.

        Raises:
            ArgumentError: they are others.
        """
        _check_features(found, self.encoder)
        standardised = self.standard(found)
        predicted, distances = self.ridge(standardised), self.distance(standardised)
        unfamiliar = familiarity(self.calibration_distances, distances) <= self.settings.alarm_rate
        # Extrapolated, a score may be anything: not even its interval is told.
        half = np.where(unfamiliar, np.inf, self._half_width(distances, predicted))
        whole = np.all(np.isfinite(found), axis=1)
        predicted = np.where(whole, predicted, np.nan)
        centre = np.where(whole, predicted, 0.0)
        return AmortisedScores(predicted, centre - half, centre + half, unfamiliar)

    def half_width(self, found: np.ndarray) -> np.ndarray:
        """Of the intervals that images with features [B, F] would have if they were familiar, nats [B]."""
        _check_features(found, self.encoder)
        standardised = self.standard(found)
        return self._half_width(self.distance(standardised), self.ridge(standardised))

    def _half_width(self, distances: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return self._quantile * self.local_scale(distances, predicted)

    def escalate(
        self,
        predicted: np.ndarray | None = None,
        *,
        tail: Tail | tuple[float, float] = "lowest",
        share: float = 0.01,
        recall: float = 0.95,
        confidence: float = 0.95,
    ) -> Escalation:
        """Which predictions must be scored exactly, so that few of the exact tail are missed.

        Args:
            predicted: [B] scores of the images at hand, whose share the result then states; by default that of the
                calibration images. The rule is the same.
            tail: the ``lowest`` or ``highest`` share of the exact scores, or those between two quantiles.
            share: of the images that the tail is, for ``lowest`` and ``highest``.
            recall: of the tail that is wanted.
            confidence: with which it is promised, where the calibration sample suffices; see `Escalation`.

        Returns:
            The rule, an `Escalation`: its ``rows(predicted)`` are those to score exactly, and its ``promised`` says
            whether the recall is promised or only expected.

        Raises:
            ArgumentError: a value is invalid.
        """
        found = escalation(self.calibration, _quantiles(tail, share), recall, confidence)
        if predicted is None or not len(predicted):
            return found
        return found.of(predicted)

    def recall(
        self,
        rows: float,
        *,
        tail: Tail | tuple[float, float] = "lowest",
        share: float = 0.01,
        confidence: float = 0.95,
    ) -> tuple[float, float]:
        """What is found of a tail when the images that are predicted nearest to its end are scored exactly.

        Args:
            rows: the share of the images that is scored exactly, such as 0.05.
            tail: ``lowest`` or ``highest``; or two quantiles, of which one must be 0 or 1.
            share: as for `escalate`.
            confidence: of the first result.

        Returns:
            The recall that can be promised (0 where the calibration sample is small), and the expected one.

        Raises:
            ArgumentError: a value is invalid, or the tail has two ends.
        """
        between = _quantiles(tail, share)
        if not 0 < rows <= 1:
            raise ArgumentError(f"rows={rows} must be a share of the images, between 0 and 1.")
        if between[0] > 0 and between[1] < 1:
            raise ArgumentError(f"tail={tail!r} has two ends; ask escalate for what it takes.")
        sign = 1.0 if between[0] <= 0 else -1.0
        values = sign * self.calibration.predicted
        return recall_bound(self.calibration, between, values <= np.quantile(values, rows), confidence)

    @property
    def digest(self) -> str:
        """SHA-256 over the encoder's digest, the settings and all arrays."""
        return stored.digest(self)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write it to a new directory: amortised.json and arrays-DIGEST.safetensors. The encoder is named, not stored.

        Raises:
            ArgumentError: the directory holds something already.
        """
        stored.write(self, directory)

    @staticmethod
    def load(directory: str | os.PathLike[str], encoder: Encoder) -> Amortised:
        """Read what `save` wrote; its predictions are the same, bit by bit.

        Raises:
            ArgumentError: encoder is not the one that it was fitted for.
            CheckpointError: it is missing or damaged.
        """
        require_encoder(encoder)
        settings, parts = stored.read(directory, encoder)
        found = Amortised(encoder, Settings(**settings), **{name: KINDS[name](**part) for name, part in parts.items()})
        _check_loaded(found, directory)
        return found

    @property
    def _quantile(self) -> float:
        sample = self.calibration
        return conformal_quantile(np.abs(sample.exact - sample.predicted) / sample.scale, self.settings.coverage)


KINDS = {
    "standard": Standard,
    "ridge": Ridge,
    "distance": Distance,
    "local_scale": LocalScale,
    "calibration": Calibration,
    "calibration_distances": lambda values: values,
}
"""The parts that are arrays, by their names in `Amortised`."""


def fit_amortised(
    encoder: Encoder,
    images: np.ndarray | jax.Array | None,
    scores: np.ndarray | jax.Array,
    *,
    features: np.ndarray | None = None,
    coverage: float = 0.9,
    alarm_rate: float = ALARM_RATE,
    seed: int = 0,
) -> Amortised:
    """Learn to predict an encoder's exact scores from one forward pass.

    Seven tenths of the images fit a ridge regression of the score on moments of every block's tokens; the others
    calibrate its intervals and its alarm. What is promised, is promised of images drawn like these: give a random
    sample of those whose scores you want. 2,000 are a good number (see docs/amortised.md).

        exact = jj.score(encoder, sample, spectrum=False).score
        predictor = jj.fit_amortised(encoder, sample, exact)
        found = predictor.predict(others)                   # found.score, .score_low, .score_high, .unfamiliar

    Args:
        encoder: an `Encoder`; of a plain function's stages nothing is known.
        images: preprocessed, float [n, H, W, 3]; None where ``features`` are given.
        scores: [n], exact, as `jepa_jax.score` computes them.
        features: float32 [n, F] of the images, where they are known already (`jepa_jax.amortised.features`).
        coverage: of the intervals: the share of images whose exact score lies within.
        alarm_rate: share of familiar images that may be called unfamiliar, and get an infinite interval.
        seed: of the split.

    Returns:
        The predictor, an `Amortised`.

    Raises:
        ArgumentError: a value is invalid, or there are too few images.
        JobError: scikit-learn is not installed.
    """
    require_encoder(encoder)
    _require_scikit_learn()
    for name, value in (("coverage", coverage), ("alarm_rate", alarm_rate)):
        if not 0 < value < 1:
            raise ArgumentError(f"{name}={value} must lie between 0 and 1.")
    exact = _exact(scores)
    if features is None:
        if images is None:
            raise ArgumentError("images=None: give preprocessed images [n, H, W, 3], or their features.")
        features = _features(encoder, images)
    elif images is not None:
        raise ArgumentError("images and features are both given; give one of them.")
    features = np.asarray(features)
    _check_features(features, encoder)
    if len(features) != len(exact):
        raise ArgumentError(f"scores has {len(exact)} values for {len(features)} images; give one for each.")
    if wrong := int(np.sum(~np.all(np.isfinite(features), axis=1))):
        raise ArgumentError(f"images: {wrong} of {len(features)} have features that are not finite; leave them out.")
    fit, calibrate = _split(len(exact), coverage, alarm_rate, seed)

    standard = fit_standard(features[fit])
    standardised = standard(features[fit])
    ridge, residuals = fit_ridge(standardised, exact[fit])
    distance, distances = fit_distance(standardised)
    scale = fit_scale(distances, ridge(standardised), residuals)

    standardised = standard(features[calibrate])
    predicted, distances = ridge(standardised), distance(standardised)
    sample = Calibration(exact[calibrate], predicted, scale(distances, predicted), exact[fit])
    settings = Settings(float(coverage), float(alarm_rate), int(seed))
    return Amortised(encoder, settings, standard, ridge, distance, scale, sample, distances)


_features = features  # `fit_amortised` has an argument of that name


def _exact(scores: np.ndarray | jax.Array) -> np.ndarray:
    exact = np.asarray(scores, np.float64)
    if exact.ndim != 1:
        raise ArgumentError(f"scores have shape {exact.shape}; give one for each image, [n].")
    if wrong := int(np.sum(~np.isfinite(exact))):
        raise ArgumentError(f"scores: {wrong} of {len(exact)} are not finite; leave these images out.")
    return exact


def _split(count: int, coverage: float, alarm_rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images that fit, and of those that calibrate."""
    require_enough(count, coverage, alarm_rate)
    fitting = int(FIT_SHARE * count)
    order = np.random.default_rng(seed).permutation(count)
    return order[:fitting], order[fitting:]


def require_enough(count: int, coverage: float, alarm_rate: float = ALARM_RATE) -> None:
    """Raise ArgumentError where so many images are too few to fit and to calibrate on."""
    calibrating = max(least_calibration(coverage), math.ceil(1 / alarm_rate) - 1)
    fitting = int(FIT_SHARE * count)
    if fitting < LEAST_FIT or count - fitting < calibrating:
        needed = math.ceil(max(LEAST_FIT / FIT_SHARE, calibrating / (1 - FIT_SHARE))) + 1
        raise ArgumentError(
            f"images: {count} are too few for coverage={coverage} and alarm_rate={alarm_rate}; score {needed} of them "
            "exactly at least, or better 2,000."
        )


def _quantiles(tail: Tail | tuple[float, float], share: float) -> tuple[float, float]:
    if not isinstance(tail, str):
        return float(tail[0]), float(tail[1])
    if tail not in ("lowest", "highest"):
        raise ArgumentError(f"tail={tail!r} is unknown; use 'lowest', 'highest' or two quantiles.")
    if not 0 < share < 1:
        raise ArgumentError(f"share={share} must lie between 0 and 1.")
    return (0.0, share) if tail == "lowest" else (1.0 - share, 1.0)


def _check_features(found: np.ndarray, encoder: Encoder) -> None:
    wanted = feature_count(encoder)
    if found.ndim != 2 or found.shape[1] != wanted:
        raise ArgumentError(f"features have shape {found.shape}; those of {encoder.spec.name} are [B, {wanted}].")


def _check_loaded(found: Amortised, directory: str | os.PathLike[str]) -> None:
    width = feature_count(found.encoder)
    shapes = {part.shape for part in (found.standard.mean, found.standard.deviation, found.ridge.weights)}
    if shapes != {(width,)} or found.distance.directions.shape[1:] != (width,):
        raise CheckpointError(f"{directory} holds features of another form; fit it again.")


def _require_scikit_learn() -> None:
    from importlib.util import find_spec

    from jepa_jax.errors import JobError

    if find_spec("sklearn") is None:
        raise JobError("amortised scores are fitted by scikit-learn: pip install 'jepa-jax[analysis]'.")
