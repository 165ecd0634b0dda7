"""`jepa-jax study controlled`: does the score rank pictures by how often their kind was seen?"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.paths import to_path
from jepa_jax.scoring.scorer import score
from jepa_jax.studies.correlations import rank_correlation
from jepa_jax.studies.image_world import FACTORS, SIZE, World, draw, world
from jepa_jax.studies.outputs import Ledger, markdown_table, rich_table, study_progress, write_json
from jepa_jax.training.config import Optimizer, TrainingConfig
from jepa_jax.training.data import load_labelled_images
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.loop import train, weights_of
from jepa_jax.training.objectives import LeJEPA
from jepa_jax.training.views import Crops, ImageViews
from jepa_jax.training.whitening import standardized, whitened

TRAINING_PICTURES = 20_000
PICTURES_PER_COMBINATION = 30
LONG_TAIL = 0.6
"""Each class of CIFAR-10 has this share of the pictures of the one before."""

IMAGES_PER_CLASS = 60
STEPS = 300
SEEDS = (1, 2, 3, 4, 5)

HEADING = "Correlations over {} seeds, with 95% intervals of their mean (Student's t)"

READING = """
**World.** The recipe was chosen with the seeds 100 to 102. `combinations` is Spearman's correlation between the mean
score of a combination of factors and its true log-frequency, over the combinations that occur; each factor's is over
its values, whose means weight combinations alike. `never seen` is the share of pairs in which a combination that no
training picture showed scores below one that occurs (0.5 is chance). `of control` is an encoder that saw all
combinations equally often, against the same frequencies: what it shares with them lies in the pictures (a small disc
on a dark ground is a simple picture), not in their frequency. `less control` is the difference of the two encoders'
scores, an estimate of the ratio of their densities: the frequency without the picture.

**Long tail.** Each class of CIFAR-10 has 0.6 of the pictures of the one before, in an order that every seed draws, so
that what makes classes score differently in themselves cancels in the mean over seeds.
"""

SCORES = ("score", "gaussian_score")


def encoder_spec(image_size: int) -> EncoderSpec:
    """A very small ViT; its crops keep colour and place, since these are what is to be counted."""
    return EncoderSpec(
        name="controlled",
        family="vit",
        vit=ViTSpec(
            width=64,
            depth=2,
            heads=2,
            patch_size=4,
            native_image_size=image_size,
            mlp_width=128,
            class_token=False,
            pooling="mean_patches",
            projection=32,
        ),
        preprocess=PreprocessSpec(image_size, image_size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        gaussian_embedding=True,
    )


def recipe(image_size: int, seed: int, steps: int) -> TrainingConfig:
    """LeJEPA on views that keep hues: what distinguishes kinds must survive them."""
    views = ImageViews(
        (Crops(2, image_size, (0.3, 1.0)),), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0, grey_share=0.0
    )
    return TrainingConfig(
        name="controlled",
        encoder=encoder_spec(image_size),
        objective=JointEmbedding(views, LeJEPA(0.05, 64), whitened=True),
        optimizer=Optimizer("muon", 2e-3, warmup_steps=20, decay_steps=steps // 3),
        start="mimetic",
        steps=steps,
        seed=seed,
        bfloat16_products=True,
        checkpoint_every=steps,
    )


def run_controlled(console: Console, output: Path, quick: bool, cifar10: Path | None) -> dict[str, Any]:
    """Run both parts, or what is left of them, print, and write ``study.json`` and ``study.md`` as they come."""
    seeds, steps = (SEEDS[:1], 20) if quick else (SEEDS, STEPS)
    ledger = Ledger(output / "runs.jsonl")
    figures: dict[str, Any] = {"steps": steps, "world": [], "long_tail": []}
    runs = [("world", seed, functools.partial(world_run, seed, steps)) for seed in seeds]
    if cifar10 is not None:
        runs += [("long_tail", seed, functools.partial(long_tail_run, cifar10, seed, steps)) for seed in seeds]
    with study_progress(console) as progress:
        task = progress.add_task("encoders", total=len(runs))
        for part, seed, run in runs:
            figures[part].append(found := ledger.get(f"{part} seed={seed} steps={steps}", run))
            progress.advance(task)
            progress.console.print(f"{part}, seed {seed}: {_first_figures(found)}", highlight=False)
            figures["summary"] = rows = [
                row for name in ("world", "long_tail") for row in summary(name, figures[name])
            ]
            write_json(output / "study.json", "jepa-jax study controlled", figures)
            (output / "study.md").write_text(f"{HEADING.format(len(seeds))}\n\n{markdown_table(rows)}{READING}")
    console.print(rich_table(figures["summary"], HEADING.format(len(seeds))))
    return figures


def _first_figures(found: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {value:.3f}" for name, value in found.items() if name.endswith(("combinations", "classes"))
    )


def summary(part: str, runs: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Mean and interval of every figure over the seeds, one row each."""
    rows = []
    for name in runs[0] if runs else ():
        values = np.array([run[name] for run in runs])
        low, high = interval(values)
        rows.append({"part": part, "figure": name, "mean": float(values.mean()), "from": low, "to": high})
    return rows


def interval(values: np.ndarray) -> tuple[float, float]:
    """95% confidence interval of the mean of correlations over seeds; all that there is for one."""
    low, high = mean_interval(values)
    return max(-1.0, low), min(1.0, high)


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95% confidence interval of a mean (Student's t); of one value alone, all numbers."""
    from scipy.stats import t

    if len(values) < 2:
        return -np.inf, np.inf
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def world_run(seed: int, steps: int) -> dict[str, float]:
    """Two encoders of the image world: how scores follow the frequencies, jointly and factor by factor.

    The second encoder is the control: it saw all combinations that occur equally often. What its scores share with
    the frequencies lies in the pictures themselves. The difference of the two encoders' scores estimates the ratio of
    their densities, that is, the frequency alone.
    """
    truth = world()
    rng = np.random.default_rng((seed, 1))
    pictures = draw(rng, np.repeat(truth.combinations, PICTURES_PER_COMBINATION, axis=0))
    occurs = truth.frequencies > 0
    means, control = (
        world_means(seed, steps, frequencies, pictures) for frequencies in (truth.frequencies, occurs / occurs.sum())
    )
    figures = {}
    for name in SCORES:
        compared = {name: means[name], f"{name} less control": means[name] - control[name]}
        for title, values in compared.items():
            figures |= {f"{title}, {key}": value for key, value in world_figures(truth, values).items()}
        figures[f"{name} of control, combinations"] = world_figures(truth, control[name])["combinations"]
    return figures


def world_means(seed: int, steps: int, frequencies: np.ndarray, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Train at such frequencies [C]; mean scores [C] of pictures [C * n, S, S, 3], sorted by combination."""
    rng = np.random.default_rng(seed)
    seen = world().combinations[rng.choice(len(frequencies), TRAINING_PICTURES, p=frequencies)]
    found = scores_of(trained_encoder(recipe(SIZE, seed, steps), draw(rng, seen)), pictures)
    return {name: values.reshape(len(frequencies), -1).mean(axis=1) for name, values in found.items()}


def world_figures(truth: World, means: np.ndarray) -> dict[str, float]:
    """Correlations of the combinations' mean scores [C] with their frequencies, over those that occur.

    Returns:
        ``combinations``; one entry per factor, over its values, combinations weighted alike (its sign where it
        has two values); and ``never seen``: the share of pairs in which a combination that never occurs scores
        below one that does.
    """
    occurs = truth.frequencies > 0
    figures = {"combinations": rank_correlation(means[occurs], np.log(truth.frequencies[occurs]))}
    for column, (factor, frequencies) in enumerate(FACTORS.items()):
        values = truth.combinations[:, column]
        by_value = np.array([means[occurs & (values == value)].mean() for value in range(len(frequencies))])
        figures[factor] = rank_correlation(by_value, np.log(frequencies))
    figures["never seen"] = float(np.mean(means[~occurs][:, None] < means[occurs][None, :]))
    return figures


def long_tail_run(cifar10: Path, seed: int, steps: int) -> dict[str, float]:
    """One encoder of CIFAR-10 with class frequencies set by us, in an order that differs by seed."""
    data = load_labelled_images(cifar10)
    rng = np.random.default_rng(seed)
    order = rng.permutation(10)  # order[c]: how many classes are more frequent than c
    frequencies = LONG_TAIL ** order.astype(float)
    per_class = [np.flatnonzero(data.train_labels == c) for c in range(10)]
    largest = min(len(rows) for rows in per_class)
    kept = [rows[: int(largest * share)] for rows, share in zip(per_class, frequencies, strict=True)]
    encoder = trained_encoder(recipe(32, seed, steps), data.train[np.concatenate(kept)])
    tested = np.concatenate([np.flatnonzero(data.test_labels == c)[:IMAGES_PER_CLASS] for c in range(10)])
    found = scores_of(encoder, data.test[tested])
    truth = np.log(frequencies)
    return {
        f"{name}, classes": rank_correlation(found[name].reshape(10, IMAGES_PER_CLASS).mean(axis=1), truth)
        for name in SCORES
    }


def trained_encoder(config: TrainingConfig, images: np.ndarray) -> Encoder:
    """Train and calibrate; nothing is kept of the run."""
    assert isinstance(config.encoder, EncoderSpec)
    with tempfile.TemporaryDirectory() as folder:
        state = train(config, images, to_path(folder))
    return whitened(Encoder(config.encoder, weights_of(state)), images[:5000])


def scores_of(encoder: Encoder, images: np.ndarray, batch_size: int = 200) -> dict[str, np.ndarray]:
    """``score`` and ``gaussian_score`` of uint8 images of the input size, [B] each."""
    batches = (standardized(encoder, images[i : i + batch_size]) for i in range(0, len(images), batch_size))
    results = [score(encoder, batch) for batch in batches]
    return {name: np.concatenate([np.asarray(getattr(result, name)) for result in results]) for name in SCORES}
