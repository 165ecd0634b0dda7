"""How exact scores are: each level against float64, in any batch, run after run, with null directions and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import jepa_jax as jj
from benchmarks.contest import Contest, make_contest
from jepa_jax.encoders import Encoder
from jepa_jax.images.natural import natural_pictures
from jepa_jax.numerics.precision import LEVELS, Precision

TRAINED = "jepa-tiny"


@dataclass(frozen=True)
class Accuracy:
    """Errors of the trained encoder that ships, on every level, and of an encoder with random weights in batches.

    Errors of every peer on random weights are the races' own (`benchmarks.standings`).

    Attributes:
        images: how many the trained encoder scores on every level.
        levels: below float64; the last one is float32, in which batches are scored as well.
        model: with random weights.
        image_size: its images' side, pixels.
        batch: images in its batches.
        peer_batch: images in one call of the paper's listing, which sums embeddings over a batch; 0 leaves it out.
    """

    images: int = 32
    levels: tuple[Precision, ...] = LEVELS[:-1]
    model: str = "dinov2-small"
    image_size: int = 112
    batch: int = 3
    peer_batch: int = 2

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Measure."""
        encoder = jj.load_encoder(TRAINED)
        pictures = encoder.preprocess(natural_pictures(self.images, encoder.spec.image_size))
        levels = list(level_errors(encoder, pictures, self.levels))
        trained: dict[str, Any] = {"model": TRAINED, "images": self.images, "levels": levels}
        result: dict[str, Any] = {"trained": trained}
        record(result)
        trained["batches"] = batch_invariance(encoder, pictures[:8], noise=levels[-1]["noise"])
        record(result)
        contest = make_contest(self.model, self.image_size, self.batch, peers=self.peer_batch > 0)
        about = {"model": self.model, "image_size": self.image_size}
        result["random"] = about | {"batches": batch_invariance(contest.encoder, contest.images)}
        record(result)
        if contest.model is not None:
            result["random"]["paper's listing"] = _listing_in_batches(contest, self.peer_batch)
        return result


@dataclass(frozen=True)
class Levels:
    """Errors of an encoder with random weights on every level: images side by side and scores alone, as jobs do it.

    Attributes:
        model: a known encoder.
        image_size: side, pixels.
        images: how many.
        batch: so many in a call.
        levels: below float64.
    """

    model: str
    image_size: int
    images: int = 24
    batch: int = 8
    levels: tuple[Precision, ...] = LEVELS[:-1]

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Measure, level by level."""
        contest = make_contest(self.model, self.image_size, self.images, peers=False)
        result: dict[str, Any] = {"model": self.model, "images": self.images, "levels": []}
        for row in level_errors(contest.encoder, contest.images, self.levels, self.batch, spectrum=False):
            result["levels"].append(row)
            record(result)
        return result


def level_errors(
    encoder: Encoder,
    images: np.ndarray,
    levels: Sequence[Precision],
    batch: int | None = None,
    *,
    spectrum: bool = True,
) -> Iterator[dict[str, Any]]:
    """Each level's errors against float64, and what was predicted of them; nats.

    Args:
        encoder: whose.
        images: preprocessed, [B, H, W, 3].
        levels: below float64.
        batch: so many in a call; by default all.
        spectrum: whether singular values are computed as well.
    """
    parts = np.split(images, range(batch or len(images), len(images), batch or len(images)))

    def found(scorer: jj.Scorer) -> tuple[np.ndarray, np.ndarray]:
        """Scores, and what is predicted of their errors."""
        results = [scorer(part) for part in parts]
        scores, errors = (
            [np.asarray(getattr(r, name), np.float64) for r in results] for name in ("score", "score_error")
        )
        return np.concatenate(scores), np.concatenate(errors)

    exact, _ = found(jj.Scorer(encoder, precision="float64", spectrum=spectrum))
    for precision in levels:
        noise = None if encoder.null_direction_count else jj.measure_noise(encoder, images[:4], precision)
        scorer = jj.Scorer(encoder, precision=precision, noise=noise, spectrum=spectrum)
        (score, predicted), (again, _) = found(scorer), found(scorer)
        error = score - exact
        yield {
            "precision": precision,
            "noise": noise,
            "error_mean": float(np.mean(error)),
            "error_rms": float(np.sqrt(np.mean(error**2))),
            "error_max": float(np.abs(error).max()),
            "predicted_median": float(np.median(predicted)),
            "share_within_predicted": float(np.mean(np.abs(error) <= predicted)),
            "run_to_run": float(np.abs(score - again).max()),
            "errors": error.tolist(),
            "predicted": predicted.tolist(),
        }


def batch_invariance(encoder: Encoder, batch: np.ndarray, noise: float | None = None) -> dict[str, Any]:
    """Largest differences of scores between images alone and at several places of a batch, in float32; nats."""
    scorer = jj.Scorer(encoder, noise=noise)
    alone = [scorer(batch[i : i + 1]) for i in range(len(batch))]
    found: dict[str, Any] = {"batch": len(batch)}
    turned = [(shift, scorer(np.roll(batch, shift, axis=0))) for shift in range(min(3, len(batch)))]
    for name in ("score", "listing_score"):
        by_itself = np.concatenate([np.asarray(getattr(result, name)) for result in alone])
        differences = [np.roll(np.asarray(getattr(r, name)), -shift) - by_itself for shift, r in turned]
        found[f"{name}_difference"] = float(np.abs(differences).max())
    return found


def _listing_in_batches(contest: Contest, batch: int) -> dict[str, Any]:
    """The paper's listing on an image alone, and last in a batch: the difference of its score; nats."""
    import torch

    model = contest.model
    model.set_attn_implementation("sdpa")
    device = next(model.parameters()).device
    pixels = torch.from_numpy(contest.images[:batch]).permute(0, 3, 1, 2).to(device)

    def last_score(pixels: torch.Tensor) -> tuple[float, float]:
        """Of the batch's last image: the listing's score, and the score without null directions."""
        jacobian = torch.autograd.functional.jacobian(lambda x: model(x).pooler_output.sum(0), pixels)
        assert isinstance(jacobian, torch.Tensor)  # a tuple comes of several inputs alone
        matrix = jacobian[:, -1].reshape(jacobian.shape[0], -1)
        listing = torch.linalg.svdvals(matrix).clip(min=1e-6).log().sum()
        return float(listing), contest.structural_score(matrix.cpu().numpy())

    # The image that the null directions were computed for comes last.
    pair = torch.cat([pixels[1:], pixels[:1]])
    alone, together = last_score(pixels[:1]), last_score(pair)
    return {
        "batch": batch,
        "listing_score_difference": abs(alone[0] - together[0]),
        "score_difference": abs(alone[1] - together[1]),
    }
