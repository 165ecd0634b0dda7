"""`python -m studies.amortised --data DIR --work DIR --output DIR`: the trial of PROTOCOL.md."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import jepa_jax as jj
from jepa_jax.amortised import features
from jepa_jax.amortised.predictor import fit_ridge, fit_standard
from jepa_jax.encoders import Encoder, EncoderSpec
from jepa_jax.encoders.drawn import random_encoder
from jepa_jax.images.preprocessing import to_rgb
from jepa_jax.markdown import markdown_lines
from jepa_jax.paths import to_path
from jepa_jax.studies.correlations import rank_correlation
from jepa_jax.studies.outputs import Ledger, write_json
from jepa_jax.training.config import load_config
from jepa_jax.training.loop import train, weights_of
from jepa_jax.training.masked_prediction import MaskedPrediction
from jepa_jax.training.objectives import LeJEPA, VICReg

COMMAND = "python -m studies.amortised --data DIR --work WORK --output benchmarks/results/study-amortised"
STEPS, TRAINED_ON = 200, 12_000
OWN, FIT, EACH, SIDE = 3000, 2000, 300, 32
SAMPLES = (100, 300, 1000, 2000)
RESAMPLES = 1000
BATCH = 252


def encoders(data: Path, work: Path) -> dict[str, Callable[[], Encoder]]:
    """The protocol's, by name."""
    config = load_config("jepa-tiny")
    assert isinstance(config.encoder, EncoderSpec)
    spec = dataclasses.replace(config.encoder, name="trained-here", gaussian_embedding=False)
    views = config.objective
    assert not isinstance(views, MaskedPrediction)
    objectives = {
        "LeJEPA": dataclasses.replace(views, criterion=LeJEPA(0.05, 64), whitened=False),
        "VICReg": dataclasses.replace(views, criterion=VICReg(), whitened=False),
        "I-JEPA": MaskedPrediction(),
    }

    def trained(name: str) -> Encoder:
        with np.load(data / "cifar10_subset.npz") as arrays:
            pictures = arrays["x_train"][:TRAINED_ON]
        masked = isinstance(objectives[name], MaskedPrediction)
        own = dataclasses.replace(spec, vit=dataclasses.replace(spec.vit, projection=None)) if masked else spec
        run = dataclasses.replace(config, encoder=own, objective=objectives[name], steps=STEPS)
        return Encoder(own, weights_of(train(run, pictures, to_path(work / name))))

    found: dict[str, Callable[[], Encoder]] = {"jepa-tiny": lambda: jj.load_encoder("jepa-tiny")}
    found |= {f"{name}, {STEPS} steps": lambda name=name: trained(name) for name in objectives}
    return found | {"random weights": lambda: random_encoder(spec)}


def pictures(data: Path) -> dict[str, list[np.ndarray]]:
    """The protocol's sets, uint8 [H, W, 3] each."""
    with np.load(data / "cifar10_subset.npz") as arrays:
        found = {"CIFAR-10": list(arrays["x_test"][:OWN])}
    with np.load(data / "ood_sets.npz") as arrays:
        found |= {name: [_rgb(picture) for picture in arrays[name][:EACH]] for name in arrays}
    rng = np.random.default_rng(0)
    photographs = [path for path in sorted((data / "photos").rglob("*")) if path.suffix.lower() in (".jpg", ".png")]
    found["photographs"] = [_crop(photographs[i % len(photographs)], rng) for i in range(EACH)]
    found["noise"] = list(rng.integers(0, 256, (EACH, SIDE, SIDE, 3), np.uint8))
    return found


def _rgb(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).convert("RGB"))


def _crop(path: Path, rng: np.random.Generator) -> np.ndarray:
    """A random quarter of a photograph."""
    picture = to_rgb(Image.open(path))
    width, height = picture.width // 2, picture.height // 2
    left, top = (int(rng.integers(0, most + 1)) for most in (picture.width - width, picture.height - height))
    return np.asarray(
        picture.crop((left, top, left + width, top + height)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    )


def known(encoder: Encoder, sets: dict[str, list[np.ndarray]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Exact scores and features of every set."""
    scorer = jj.Scorer(encoder, spectrum=False)
    found = {}
    for name, members in sets.items():
        images = encoder.preprocess(members)
        parts = [np.asarray(scorer(images[i : i + BATCH]).score) for i in range(0, len(images), BATCH)]
        found[name] = np.concatenate(parts), features(encoder, images)
    return found


def parts_of(encoder: Encoder) -> dict[str, np.ndarray]:
    """Which features are compared: indices, by name."""
    vit = encoder.spec.vit
    width, depth = vit.width, vit.depth
    per_block = 2 if vit.averages_tokens else 3
    blocks = np.arange(per_block * width * depth).reshape(depth, per_block, width)
    embedding = np.arange(blocks.size, blocks.size + encoder.spec.embedding_size)
    return {
        "all": np.concatenate([blocks.ravel(), embedding]),
        "embedding": embedding,
        "means": blocks[:, 0].ravel(),
        "standard deviations": blocks[:, 1].ravel(),
    } | {f"block {number + 1}": blocks[number].ravel() for number in range(depth)}


def predicted(train_on: np.ndarray, scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """By ridge regression on standardised features, as `fit_amortised` does it."""
    standard = fit_standard(train_on)
    ridge, _ = fit_ridge(standard(train_on), scores)
    return ridge(standard(others))


def judged(prediction: np.ndarray, exact: np.ndarray) -> dict[str, Any]:
    """Rank correlation with its interval, and the median excess."""
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(exact), size=len(exact)) for _ in range(RESAMPLES))
    low, high = np.quantile([rank_correlation(prediction[rows], exact[rows]) for rows in draws], [0.025, 0.975])
    excess = float(np.median(prediction - exact))
    return {"spearman": rank_correlation(prediction, exact), "low": low, "high": high, "excess": excess}


def try_encoder(make: Callable[[], Encoder], sets: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """All comparisons for one encoder."""
    begun = time.monotonic()
    encoder = make()
    found = known(encoder, sets)
    scores, own = found.pop("CIFAR-10")
    order = np.random.default_rng(0).permutation(len(scores))
    fit, judge = order[:FIT], order[FIT:]

    def within(columns: np.ndarray, rows: np.ndarray = fit, targets: np.ndarray | None = None) -> dict[str, Any]:
        known_scores = scores[rows] if targets is None else targets
        return judged(predicted(own[rows][:, columns], known_scores, own[judge][:, columns]), scores[judge])

    parts = parts_of(encoder)
    shuffled = np.random.default_rng(1).permutation(scores[fit])
    return {
        "spread": float(np.std(scores)),
        "parts": {name: within(columns) for name, columns in parts.items()},
        "samples": {str(count): within(parts["all"], fit[:count]) for count in SAMPLES},
        "control": within(parts["all"], targets=shuffled),
        "sets": {
            name: judged(predicted(own[fit], scores[fit], other), exact) for name, (exact, other) in found.items()
        },
        "minutes": (time.monotonic() - begun) / 60,
    }


def page(figures: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown: Spearman's rho, with 95% intervals."""

    def table(kind: str) -> list[str]:
        names = list(next(iter(figures.values()))[kind])
        rows = [
            [
                encoder,
                *(f"{one['spearman']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in found[kind].values()),
            ]
            for encoder, found in figures.items()
        ]
        return markdown_lines(["encoder", *names], rows)

    control = [[name, f"{one['control']['low']:.3f} to {one['control']['high']:.3f}"] for name, one in figures.items()]
    excess = [[name, *(f"{of['excess']:+.1f}" for of in one["sets"].values())] for name, one in figures.items()]
    names = list(next(iter(figures.values()))["sets"])
    lines = [
        "# Where an amortised score comes from",
        "",
        f"`{COMMAND}`; the question is in studies/amortised/PROTOCOL.md.",
    ]
    lines += ["", "## By features", "", *table("parts"), "", "## By images to fit", "", *table("samples")]
    lines += ["", "## On other sets, fitted on CIFAR-10", "", *table("sets")]
    lines += ["", "Median excess of the prediction, nats:", "", *markdown_lines(["encoder", *names], excess)]
    lines += ["", "## Control: scores shuffled before the fit", "", *markdown_lines(["encoder", "rho"], control)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try every encoder, or what is left of them, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "work", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    asked = parser.parse_args()
    ledger, sets = Ledger(asked.work / "ledger.jsonl"), pictures(asked.data)
    figures = {}
    for name, make in encoders(asked.data, asked.work).items():
        figures[name] = ledger.get(name, lambda make=make: try_encoder(make, sets))
        print(name, {part: round(one["spearman"], 3) for part, one in figures[name]["parts"].items()}, flush=True)
    write_json(asked.output / "results.json", COMMAND, {"encoders": figures})
    (asked.output / "README.md").write_text(page(figures))


if __name__ == "__main__":
    main()
