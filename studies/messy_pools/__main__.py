"""`python -m studies.messy_pools --data DATA --output DIR`: the trial of PROTOCOL.md."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np

from jepa_jax.analysis.metrics import auroc
from jepa_jax.encoders import Encoder, EncoderSpec
from jepa_jax.loading import load_encoder
from jepa_jax.markdown import markdown_lines
from jepa_jax.paths import to_path
from jepa_jax.studies.outputs import Ledger, write_json
from jepa_jax.studies.quality import Split
from jepa_jax.training.config import load_config
from jepa_jax.training.loop import train, weights_of
from jepa_jax.training.whitening import embed_images, whitened
from studies.messy_pools.keeping import network, probe
from studies.messy_pools.pool import CLEAN_TRAINING, KINDS, MESS_TRAINING, Pool, make_pool
from studies.messy_pools.rules import CHEAP, judge, readings

COMMAND = "python -m studies.messy_pools --data DATA --output benchmarks/results/study-messy-pools"
SHARES = (0.05, 0.1, 0.2)
KEPT = (0.9, 0.7, 0.5)
SEEDS = (1, 2, 3)
TEST_IMAGES = 2000
RESAMPLES = 500
STEPS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/study-messy-pools"))
    parser.add_argument("--work", type=Path, default=Path("build/study-messy-pools"), help="what it goes on from")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the encoder; fewer: does it run?")
    parser.add_argument("--clean", type=int, default=2400, help="images; fewer: does it run?")
    parser.add_argument("--untrained", action="store_true", help="jepa-tiny alone: the part that trains no encoder")
    options = parser.parse_args()
    begun = time.monotonic()
    pool = make_pool(options.data, options.clean, options.clean // 4)
    tiny = load_encoder("jepa-tiny")
    figures: dict[str, Any] = {"finding": {}, "keeping": {}}
    numbers = {}
    makers = {
        "jepa-tiny": lambda: tiny,
        "of the pool": lambda: pool_encoder(options.data, options.work, options.steps),
    }
    if options.untrained:
        del makers["of the pool"]
    for label, make in makers.items():
        encoder = make()
        found = readings(encoder, pool.images, options.work / f"readings-{label}-{len(pool.images)}-{options.steps}")
        numbers[label] = judge(encoder, found, pool.images)
        figures["finding"][label] = {str(share): finding(pool, numbers[label], share) for share in SHARES}
        print(
            label, {n: round(r["auroc"], 3) for n, r in figures["finding"][label]["0.1"]["rules"].items()}, flush=True
        )
    ledger = Ledger(options.work / f"keeping-{len(pool.images)}-{options.steps}.jsonl")
    figures["keeping"] = keeping(options.data, pool, tiny, numbers, ledger)
    figures["minutes of this call"] = round((time.monotonic() - begun) / 60, 1)
    figures["encoder of the pool"] = "not trained yet" if options.untrained else f"{options.steps} steps"
    command = COMMAND + (" --untrained" if options.untrained else "")
    write_json(options.output / "study.json", command, figures)
    (options.output / "study.md").write_text(page(figures))
    print(page(figures))


def pool_encoder(data: Path, work: Path, steps: int) -> Encoder:
    """Trained on a messy pool of its own size, or what a stopped training has left gone on with."""
    config = dataclasses.replace(load_config("jepa-tiny"), steps=steps, checkpoint_every=25, name="messy-pool")
    config = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, decay_steps=max(1, steps // 3))
    )
    assert isinstance(config.encoder, EncoderSpec)
    pool = make_pool(data, CLEAN_TRAINING, MESS_TRAINING)
    state = train(config, pool.images, to_path(work / f"encoder-{steps}"))
    return whitened(Encoder(config.encoder, weights_of(state)), pool.images[:5000])


def finding(pool: Pool, numbers: dict[str, np.ndarray], share: float) -> dict[str, Any]:
    """How much of the mess lies in the lowest part of each rule, and AUROC, with intervals."""
    rows = pool.with_share(share)
    mess = pool.mess[rows]
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(rows), size=len(rows)) for _ in range(RESAMPLES)]
    found: dict[str, Any] = {"images": len(rows), "mess": int(mess.sum()), "rules": {}}
    sampled = {}
    for name, values in numbers.items():
        here = values[rows]
        sampled[name] = np.array(
            [[recall(here[d], mess[d]), auroc(here[d][~mess[d]], here[d][mess[d]])] for d in draws]
        )
        low, high = np.quantile(sampled[name], [0.025, 0.975], axis=0)
        found["rules"][name] = {
            "recall": recall(here, mess),
            "recall_interval": [float(low[0]), float(high[0])],
            "auroc": auroc(here[~mess], here[mess]),
            "auroc_interval": [float(low[1]), float(high[1])],
            "by_kind": {k: auroc(here[~mess], here[pool.kinds[rows] == k]) for k in KINDS},
        }
    best = max(CHEAP, key=lambda name: found["rules"][name]["auroc"])
    low, high = np.quantile(sampled["score"][:, 1] - sampled[best][:, 1], [0.025, 0.975])
    found["best_cheap_rule"] = best
    found["score_less_best_cheap"] = [float(low), float(high)]
    return found


def recall(values: np.ndarray, mess: np.ndarray) -> float:
    """Share of the mess among as many of the lowest values as there is mess."""
    count = int(mess.sum())
    return float(mess[np.argsort(values, kind="stable")[:count]].mean())


def keeping(
    data: Path, pool: Pool, tiny: Encoder, numbers: dict[str, dict[str, np.ndarray]], ledger: Ledger
) -> dict[str, Any]:
    """Accuracies of what is trained on what each rule keeps, in the mean over shares and seeds, against chance."""
    with np.load(data / "cifar10_subset.npz") as arrays:
        images, labels = arrays["x_test"][:TEST_IMAGES], arrays["y_test"][:TEST_IMAGES].ravel()
    tests = Split(embed_images(tiny, images), labels), Split(images, labels)
    embedding = embed_images(tiny, pool.images)
    rules = {f"{label}: {n}": v for label, some in numbers.items() for n, v in some.items() if n != "chance"}
    rules["oracle"] = np.where(pool.mess, 0.0, 1.0)
    accuracies: dict[str, list[list[float]]] = {}
    for name, values in {"chance": None, **rules}.items():
        rows = []
        for share in KEPT:
            for seed in SEEDS:
                part = f"{name} {share} seed={seed}"
                kept = keep(values, len(pool.images), share, seed)
                train_both = functools.partial(both, embedding, pool, kept, tests, seed)
                figures = ledger.get(part, train_both)
                rows.append([figures["probe"], figures["network"]])
        accuracies[name] = rows
    chance = np.array(accuracies["chance"])
    found = {}
    for name, rows in accuracies.items():
        gains = np.array(rows) - chance
        error = gains.std(axis=0, ddof=1) / np.sqrt(len(gains))
        found[name] = {
            kind: {"accuracy": float(np.mean(np.array(rows)[:, i])), "gain": float(g), "standard_error": float(e)}
            for i, (kind, g, e) in enumerate(zip(("probe", "network"), gains.mean(axis=0), error, strict=True))
        }
    return found


def keep(values: np.ndarray | None, count: int, share: float, seed: int) -> np.ndarray:
    """The rows with the highest values; ties, and everything by chance, at random by seed."""
    shuffled = np.random.default_rng(seed).permutation(count)
    if values is None:
        return np.sort(shuffled[: round(share * count)])
    return np.sort(shuffled[np.argsort(-values[shuffled], kind="stable")][: round(share * count)])


def both(embedding: np.ndarray, pool: Pool, kept: np.ndarray, tests: tuple[Split, Split], seed: int) -> dict[str, Any]:
    """Accuracy of a probe and of a network."""
    return {
        "probe": probe(embedding, pool.labels, kept, tests[0]),
        "network": network(pool.images, pool.labels, kept, tests[1], seed),
    }


def page(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        "# Messy pools",
        "",
        f"Made by `{COMMAND}`; the protocol is `studies/messy_pools/PROTOCOL.md`. "
        f"Encoder trained on a messy pool: {figures['encoder of the pool']}.",
    ]
    for label, shares in figures["finding"].items():
        for share, found in shares.items():
            rows = []
            for name, row in sorted(found["rules"].items(), key=lambda item: -item[1]["auroc"]):
                low, high = row["recall_interval"]
                least, most = row["auroc_interval"]
                rows.append(
                    [
                        name,
                        f"{row['recall']:.2f} [{low:.2f}, {high:.2f}]",
                        f"{row['auroc']:.3f} [{least:.3f}, {most:.3f}]",
                    ]
                    + [f"{row['by_kind'][kind]:.2f}" for kind in KINDS]
                )
            low, high = found["score_less_best_cheap"]
            lines += [
                "",
                f"## Finding: {label}, {float(share):.0%} of mess",
                "",
                *markdown_lines(["rule", "recall (chance: the share)", "AUROC", *KINDS], rows),
                "",
                f"AUROC of the score less that of {found['best_cheap_rule']}: [{low:+.3f}, {high:+.3f}].",
            ]
    rows = [
        [name, *(f"{r[k]['accuracy']:.3f} ({r[k]['gain']:+.3f} +- {r[k]['standard_error']:.3f})" for k in r)]
        for name, r in figures["keeping"].items()
    ]
    lines += [
        "",
        "## Keeping 90, 70 and 50%",
        "",
        *markdown_lines(["rule", "probe (gain)", "network (gain)"], rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
