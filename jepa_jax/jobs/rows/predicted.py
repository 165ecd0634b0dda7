"""A step that predicts scores from one forward pass, in the place of one that computes them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jepa_jax.amortised import Amortised, AmortisedScores
from jepa_jax.amortised.features import THREADS, compute_features, examples_in_call
from jepa_jax.encoders import Encoder
from jepa_jax.images.decoding import InputRecipe
from jepa_jax.jobs.output.schema import PREDICTED
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.scoring.meshes import local_mesh
from jepa_jax.scoring.programs import placing


class FeatureStep:
    """Computes features of batches of one size on all local devices; their rows are ``features`` alone.

    Args:
        encoder: whose features.
    """

    def __init__(self, encoder: Encoder):
        devices = jax.local_devices()
        self.recipe = InputRecipe(encoder.spec.preprocess)
        self.batch_size = self.records = len(devices) * examples_in_call(encoder, platform_of(devices))
        self.image_shape: tuple[int, ...] = encoder.spec.input_shape
        self.encoder = encoder
        mesh = local_mesh()
        replicated = devices[0] if mesh is None else NamedSharding(mesh, PartitionSpec())
        self._images = devices[0] if mesh is None else NamedSharding(mesh, PartitionSpec("data"))
        self._threads = THREADS[platform_of(devices)]
        with placing(f"the encoder {encoder.spec.name}"):
            self._params = jax.device_put(encoder.params, replicated)

    def __call__(self, images: np.ndarray) -> Any:
        """Features [batch_size, F] of images; see `Step`."""
        return compute_features(self.encoder.function, self._params, jax.device_put(images, self._images))

    def columns(self, result: Any, records: int, optional: tuple[str, ...]) -> dict[str, np.ndarray]:
        """See `Step`."""
        return {"features": result[:records]}

    def why_no_score(self, row: Mapping[str, Any]) -> str | None:
        """See `Step`."""
        return None if np.all(np.isfinite(row["features"])) else "the encoder's output overflows"

    def batches_at_once(self) -> int:
        """See `Step`."""
        return self._threads

    def get_ready(self) -> str:
        """See `Step`."""
        begun = time.monotonic()
        self(np.zeros((self.batch_size, *self.image_shape), np.float32))
        return f"Compiled in {time.monotonic() - begun:.1f} s: one forward pass of {self.batch_size} images at a time."


@dataclass(frozen=True)
class Predictions:
    """Of a batch: what was predicted, and the embeddings [B, K]."""

    found: AmortisedScores
    embedding: np.ndarray


class PredictingStep(FeatureStep):
    """Predicts the scores of batches of one size on all local devices, by one forward pass.

    Args:
        encoder: whose scores.
        predictor: that was fitted for it.
    """

    def __init__(self, encoder: Encoder, predictor: Amortised):
        super().__init__(encoder)
        self._predictor = predictor

    def __call__(self, images: np.ndarray) -> Predictions:
        """See `Step`."""
        found = super().__call__(images)
        embedding = found[:, -self.encoder.spec.embedding_size :]  # the last of the features
        return Predictions(self._predictor.predict_features(found), embedding)

    def columns(self, result: Predictions, records: int, optional: tuple[str, ...]) -> dict[str, np.ndarray]:
        """See `Step`."""
        found = result.found
        told = {
            "score": found.score,
            "score_low": found.score_low,
            "score_high": found.score_high,
            "unfamiliar": found.unfamiliar,
        } | ({"embedding": result.embedding} if "embedding" in optional else {})
        nothing = np.full(records, None)
        return {name: values[:records] for name, values in told.items()} | {
            "method": np.full(records, PREDICTED),
            "score_error": nothing,
            "precision": nothing,
            "log_volume_rank": nothing,
        }

    def why_no_score(self, row: Mapping[str, Any]) -> str | None:
        """See `Step`."""
        if np.isfinite(row["score"]):
            return None
        return f"the predicted score is {row['score']}: the encoder's output overflows"
