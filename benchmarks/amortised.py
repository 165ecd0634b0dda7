"""Amortised scores of jepa-tiny against exact ones: ``python -m benchmarks.amortised --images X.npz --others Y.npz``.

X has pictures like those that jepa-tiny learnt from, uint8 [N, 32, 32, 3] under ``x_test``: CIFAR-10's test images. Y
has other sets, a name each; noise is drawn here. All are scored exactly and their features computed, in one run, which
gives both rates. Then, 20 times, 2,000 of X are drawn as the sample, and the others are predicted; and other sets are
mixed in, 5% of all. Bars: Spearman .97; 90% intervals cover 87 to 93%, of the lowest decile 85%; the exact lowest 1%
lies in the lowest 5% predicted, .95 of it in 19 of 20 draws; 50 times the exact rate; of mixed-in images outside
their interval, 90% are flagged or escalated. Results go to ``benchmarks/results/amortised-DATE/results.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import rankdata

import jepa_jax as jj
from benchmarks.places import dated
from jepa_jax.amortised import Amortised, AmortisedScores, features
from jepa_jax.encoders import Encoder
from jepa_jax.provenance import describe

SAMPLE, DRAWS, EACH, BATCH = 2000, 20, 500, 252
MIXED = 0.05
"""Share of other sets among what is predicted."""


def scored(encoder: Encoder, pictures: np.ndarray) -> dict[str, Any]:
    """Exact scores and features of pictures, and the seconds that each took."""
    images = encoder.preprocess([Image.fromarray(picture).convert("RGB") for picture in pictures])
    scorer = jj.Scorer(encoder, spectrum=False)
    np.asarray(scorer(images[:BATCH]).score)  # compiles
    features(encoder, images[:BATCH])
    begun = time.monotonic()
    parts = [np.asarray(scorer(images[i : i + BATCH]).score) for i in range(0, len(images), BATCH)]
    exact_seconds = time.monotonic() - begun
    begun = time.monotonic()
    found = features(encoder, images)
    seconds = time.monotonic() - begun
    return {"exact": np.concatenate(parts), "features": found, "exact_seconds": exact_seconds, "seconds": seconds}


def outside(head: Amortised, found: AmortisedScores, of: dict[str, Any]) -> np.ndarray:
    """Whose exact score lies outside of the interval that they would have if they were familiar, bool [n]."""
    half = head.half_width(of["features"])
    return np.abs(of["exact"] - found.score) > half


def one_draw(encoder: Encoder, own: dict[str, Any], others: dict[str, dict[str, Any]], seed: int) -> dict[str, float]:
    """What a sample gives."""
    order = np.random.default_rng(seed).permutation(len(own["exact"]))
    sample, rest = order[:SAMPLE], order[SAMPLE:]
    head = jj.fit_amortised(encoder, None, own["exact"][sample], features=own["features"][sample], seed=seed)
    found, exact = head.predict_features(own["features"][rest]), own["exact"][rest]
    covered = (exact >= found.score_low) & (exact <= found.score_high)
    lowest = exact <= np.quantile(exact, 0.1)
    rarest = np.argsort(exact)[: round(0.01 * len(exact))]
    rank = np.argsort(np.argsort(found.score)) / len(exact)
    rows = {
        "spearman": np.corrcoef(rankdata(found.score), rankdata(exact))[0, 1],
        "coverage": covered.mean(),
        "coverage_of_lowest_decile": covered[lowest].mean(),
        "flagged": found.unfamiliar.mean(),
        "recall_of_lowest_1%_at_2%": (rank[rarest] < 0.02).mean(),
        "recall_of_lowest_1%_at_5%": (rank[rarest] < 0.05).mean(),
        "recall_of_lowest_1%_at_10%": (rank[rarest] < 0.1).mean(),
    }
    # As many of each other set as make up the share, drawn anew; escalated are the lowest 5% of all together.
    count = round(MIXED / (1 - MIXED) * len(rest) / len(others))
    rng, mixed = np.random.default_rng(seed), {}
    for name, other in others.items():
        chosen = rng.permutation(len(other["exact"]))[:count]
        mixed[name] = {"exact": other["exact"][chosen], "features": other["features"][chosen]}
    said = {name: head.predict_features(one["features"]) for name, one in mixed.items()}
    edge = np.quantile(np.concatenate([found.score, *(one.score for one in said.values())]), 0.05)
    wrong = caught = 0
    for name, one in mixed.items():
        bad = outside(head, said[name], one)
        good = bad & (said[name].unfamiliar | (said[name].score <= edge))
        rows |= {
            f"{name}_flagged": said[name].unfamiliar.mean(),
            f"{name}_outside": bad.mean(),
            f"{name}_caught": good.sum() / max(1, bad.sum()),
        }
        wrong, caught = wrong + bad.sum(), caught + good.sum()
    rows["mixed_in_caught"] = caught / max(1, wrong)
    return {name: float(value) for name, value in rows.items()}


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", required=True)
    parser.add_argument("--others", required=True)
    asked = parser.parse_args()
    encoder = jj.load_encoder("jepa-tiny")
    own = scored(encoder, np.load(asked.images)["x_test"])
    print("scored", flush=True)
    sets = {name: pictures[:EACH] for name, pictures in np.load(asked.others).items()}
    sets["noise"] = np.random.default_rng(0).integers(0, 256, (EACH, 32, 32, 3), np.uint8)
    others = {name: scored(encoder, pictures) for name, pictures in sets.items()}
    draws = [one_draw(encoder, own, others, seed) for seed in range(DRAWS)]
    table = {
        name: {
            "mean": np.mean(values := [draw[name] for draw in draws]),
            "least": np.min(values),
            "greatest": np.max(values),
        }
        for name in draws[0]
    }
    count = len(own["exact"])
    rates = {"exact": count / own["exact_seconds"], "amortised": count / own["seconds"]}
    result = {
        "environment": describe(),
        "images": count,
        "sample": SAMPLE,
        "draws": DRAWS,
        "images_per_second": rates,
        "ratio": rates["amortised"] / rates["exact"],
        "figures": table,
        "draws_with_recall_of_.95_at_5%": sum(draw["recall_of_lowest_1%_at_5%"] >= 0.95 for draw in draws),
    }
    (dated("amortised") / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
