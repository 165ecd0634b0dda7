"""The figures of a model card: what an encoder of CIFAR-10 knows, and what its score tells apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jepa_jax.analysis.baselines import DETECTORS
from jepa_jax.analysis.metrics import auroc
from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.loading import load_encoder
from jepa_jax.scoring.batches import score_steps
from jepa_jax.studies.outputs import markdown_table, rich_table, write_json
from jepa_jax.studies.quality import NEIGHBOURS, Split, linear_probe, nearest_neighbours, spread
from jepa_jax.training.data import load_labelled_images

SCORED = 1000
"""Images per set that are scored."""


def run_card(console: Console, output: Path, model: str, cifar10: Path, outliers: Path) -> dict[str, Any]:
    """Measure, print, and write ``card.json`` and ``MODEL_CARD.md``."""
    encoder = load_encoder(model)
    data = load_labelled_images(cifar10)
    console.print(f"{encoder}: embedding {len(data.train) + len(data.test):,} images")
    train = Split(embed(encoder, data.train), data.train_labels)
    test = Split(embed(encoder, data.test), data.test_labels)
    figures: dict[str, Any] = {
        "model": model,
        "digest": encoder.digest,
        "parameters": encoder.parameter_count,
        "linear_probe": linear_probe(train, test),
        "nearest_neighbours": nearest_neighbours(train, test),
        "embeddings": spread(test.embeddings),
    }
    console.print(
        f"linear probe {figures['linear_probe']:.1%}, nearest neighbours {figures['nearest_neighbours']:.1%}"
    )
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(data.test))[: 2 * SCORED]
    reference, inside = data.test[chosen[:SCORED]], data.test[chosen[SCORED:]]
    sets = outlier_sets(outliers, rng)
    figures["scores"], figures["auroc"] = detection(encoder, reference, inside, sets)
    write_json(output / "card.json", f"jepa-jax study card --model {model}", figures)
    rows = [{"against": name} | row for name, row in figures["auroc"].items()]
    (output / "MODEL_CARD.md").write_text(card_text(encoder, figures, rows))
    console.print(rich_table(rows, "AUROC, CIFAR-10 test against other images; 1 = typical images score higher"))
    return figures


def outlier_sets(path: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, and uniform noise."""
    try:
        with np.load(path) as file:
            sets = {
                name: file[name][:SCORED]
                for name in file.files
                if file[name].dtype == np.uint8 and file[name].ndim > 2
            }
    except (OSError, ValueError) as error:
        raise ArgumentError(f"outliers {path} cannot be read ({error}).") from error
    return sets | {"uniform_noise": rng.integers(0, 256, (SCORED // 2, 32, 32, 3), np.uint8)}


def detection(
    encoder: Encoder, reference: np.ndarray, inside: np.ndarray, sets: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Statistics of each set's score, and how well scores and baselines tell it from the inside set.

    The baselines, those of `jepa-jax evaluate` on the same embeddings, are fitted on the reference set, which is none
    of those that are told apart.
    """
    fitted = embed(encoder, reference)
    judges = {name: DETECTORS[name][1](fitted) for name in ("knn", "mahalanobis")}

    def measures(images: np.ndarray) -> dict[str, np.ndarray]:
        """Each higher for what is typical."""
        result = score_steps(encoder, (encoder.preprocess([image])[0] for image in images))
        found = {"score": np.asarray(result.score)}
        if result.gaussian_score is not None:
            found["gaussian_score"] = np.asarray(result.gaussian_score)
        return found | {name: judge(np.asarray(result.embedding)) for name, judge in judges.items()}

    typical = measures(inside)
    statistics = {"cifar10": _quantiles(typical["score"])}
    areas = {}
    for name, images in sets.items():
        other = measures(images)
        statistics[name] = _quantiles(other["score"])
        areas[name] = {measure: auroc(values, other[measure]) for measure, values in typical.items()}
    return statistics, areas


def embed(encoder: Encoder, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Pictures [N, ...] by the encoder's own recipe to embeddings [N, K]."""
    batches = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
    return np.concatenate([np.asarray(encoder(encoder.preprocess(list(batch)))) for batch in batches])


def _quantiles(scores: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(scores, [0.05, 0.5, 0.95])
    return {"mean": float(scores.mean()), "std": float(scores.std()), "5%": low, "median": middle, "95%": high}


def card_text(encoder: Encoder, figures: dict[str, Any], areas: list[dict[str, Any]]) -> str:
    """The card itself, from the figures alone: nothing in it is written by hand."""
    vit, measured = encoder.spec.vit, figures["embeddings"]
    statistics = [{"images": name} | row for name, row in figures["scores"].items()]
    gaussianity = (
        f"excess kurtosis {measured['excess_kurtosis']:.2f}, mean squared norm / K "
        f"{measured['mean_squared_norm_by_K']:.2f}, "
        f"largest absolute mean {measured['largest_mean']:.2f} (N(0, I): 0, 1, 0)"
    )
    return f"""# {encoder.spec.name}

A vision transformer of {vit.depth} blocks, width {vit.width}, patches of {vit.patch_size} pixels at
{encoder.spec.image_size} x {encoder.spec.image_size} pixels, K = {encoder.spec.embedding_size};
{encoder.parameter_count:,} parameters; {encoder.spec.licence}. Digest `{encoder.digest[:16]}...`.

**Data.** The 50,000 training images of CIFAR-10 (Krizhevsky 2009), without labels.

**Recipe.** `jepa_jax/training/configs/jepa_tiny.py`: LeJEPA (invariance of random crops, SIGReg) on whitened
embeddings; the command is in that file, the run's metrics are in `metrics.jsonl`.

**Use.** It makes the package work offline, for demonstration and tests. Its scores rank images by how typical they are
for CIFAR-10 at 32 pixels; for photographs use a published encoder.

| measure, on the embedding that is scored | value |
|---|---|
| linear probe (logistic regression on 50,000), accuracy on the 10,000 test images | {figures["linear_probe"]:.1%} |
| {NEIGHBOURS} nearest neighbours (cosine), accuracy | {figures["nearest_neighbours"]:.1%} |
| effective rank | {measured["effective_rank"]:.1f} of {encoder.spec.embedding_size} |
| dead dimensions | {measured["dead_dimensions"]} |
| Gaussianity | {gaussianity} |

Scores in nats, {SCORED:,} images a set (fewer where a set has fewer):

{markdown_table(statistics)}
AUROC of CIFAR-10 test images against other images; 1 = CIFAR-10 always higher, 0.5 = chance, below = the wrong way.
knn and mahalanobis, as `jepa-jax evaluate` has them, are fitted on the embeddings of {SCORED:,} held-out test images:

{markdown_table(areas)}
Made by `jepa-jax study card`.
"""
