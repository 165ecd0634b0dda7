"""The report's charts: histogram, spectrum, complexity, agreement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jepa_jax.analysis.agreement import Agreement
from jepa_jax.analysis.metrics import spearman
from jepa_jax.analysis.report.charts import (
    MINUS,
    Axis,
    Chart,
    Key,
    Mark,
    Spot,
    band,
    dots,
    line,
    number,
    points,
    rule,
    spread,
    steps,
)
from jepa_jax.analysis.report.names import isolated
from jepa_jax.scored.table import ScoreTable, drawn_rows, shared_noun

MOST_BINS = 72
MOST_DOTS = 1500
"""More would be a blot, and a large file."""

MOST_SPECTRA = 5000
"""Rows that quantile bands are taken over; more change nothing that can be seen."""

TAIL = 0.05
"""Share of the images that is called rarest, and most typical."""


def histogram(tables: Sequence[ScoreTable], column: str = "score") -> Chart:
    """How the scores of each set are distributed."""
    values = [table.scores[column] for table in tables]
    edges = _edges(values)
    shares = [np.histogram(v, edges)[0] / len(v) for v in values]
    x = Axis(f"{column.replace('_', ' ')}, nats", float(edges[0]), float(edges[-1]))
    nouns = f"{shared_noun(tables)}s"
    y = Axis(f"share of the {nouns}", 0, 1.06 * max(float(share.max()) for share in shares), share=True)
    alone = len(tables) == 1
    marks = _zones(x, y, edges, shares[0], values[0]) if alone else []
    keys = (
        [
            Key("area", "rare", "rarest 5%, to the nearest column"),
            Key("area", "typical", "most typical 5%, likewise"),
            Key("rule", "ink", "median"),
        ]
        if alone
        else []
    )
    for i, (table, share, v) in enumerate(zip(tables, shares, values, strict=True)):
        tone = "ink" if alone else f"set{i % 6}"
        if not alone:
            marks.append(Mark("area", tone, steps(x, y, edges, share, closed=True)))
            marks.append(Mark("line", tone, steps(x, y, edges, share, closed=False)))
            keys.append(Key("area", tone, f"{isolated(table.name)}, median {number(float(np.median(v)))}"))
        marks.append(Mark("rule", tone, rule(x, float(np.median(v)))))
    middles = (edges[:-1] + edges[1:]) / 2
    names = ["" if alone else f"{isolated(table.name)} " for table in tables]
    spots = [
        Spot(
            round(100 * float(x.place(middle)), 2),
            f"{number(edges[i])} to {number(edges[i + 1])}: "
            + "; ".join(f"{name}{share[i]:.2%}" for name, share in zip(names, shares, strict=True)),
        )
        for i, middle in enumerate(middles)
    ]
    quantiles = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    rows = tuple(
        (isolated(table.name), number(len(table), 0), *(number(float(q)) for q in np.quantile(v, quantiles)))
        for table, v in zip(tables, values, strict=True)
    )
    return Chart(
        "histogram",
        f"Scores of {' and '.join(isolated(table.name) for table in tables)}",
        "; ".join(
            f"{row[0]}: {row[1]} {nouns}, median {row[5]}, 90% between {row[3]} and {row[7]} nats" for row in rows
        ),
        f"Each column is the share of a set's {nouns} with a score in that range; a dashed line marks a median. "
        "Further right is a larger log-volume, which is read as more typical of what the encoder was trained on.",
        x,
        y,
        tuple(marks),
        tuple(keys),
        tuple(spots),
        ("set", nouns, "lowest", "5%", "25%", "median", "75%", "95%", "highest"),
        rows,
    )


def spectrum(table: ScoreTable) -> Chart | None:
    """Singular values by rank: quantile bands over the images, and the medians of both extremes."""
    spectra = table.structural_spectrum
    if spectra is None or spectra.shape[1] < 2:
        return None
    known = np.isfinite(spectra[:, 0])  # a predicted score has none
    missing = int(len(known) - known.sum())
    if missing:
        table, spectra = table.take(known), spectra[known]
    scores = table.scores["score"]
    tails = {"rare": scores <= np.quantile(scores, TAIL), "typical": scores >= np.quantile(scores, 1 - TAIL)}
    some = drawn_rows(len(table), MOST_SPECTRA)
    low, quarter, median, three, high = np.quantile(spectra[some], [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    medians = {tone: np.median(spectra[_rows_of(mask)], axis=0) for tone, mask in tails.items()}
    ranks = np.arange(1, spectra.shape[1] + 1)
    kept = np.unique(np.linspace(0, len(ranks) - 1, 240).round().astype(int))
    curves = [low, high, *medians.values()]
    positive = np.concatenate([curve[curve > 0] for curve in curves])
    x = Axis("rank of the singular value", 1, float(ranks[-1]))
    y = Axis("singular value", float(positive.min()) / 1.15, float(positive.max()) * 1.15, log=True)
    at = ranks[kept].astype(float)
    marks = (
        Mark("area", "band", band(x, y, at, low[kept], high[kept])),
        Mark("area", "core", band(x, y, at, quarter[kept], three[kept])),
        *(Mark("line", tone, line(x, y, at, curve[kept])) for tone, curve in medians.items()),
        Mark("line", "ink", line(x, y, at, median[kept])),
    )
    picks = np.unique(np.linspace(0, len(ranks) - 1, 9).round().astype(int))
    nulls, noun = table.null_directions, table.noun
    return Chart(
        "spectrum",
        f"Singular values of the Jacobian, {isolated(table.name)}",
        f"{len(ranks)} singular values per {noun}. The median of the largest is {_short(median[0])}, of the smallest "
        f"{_short(median[-1])}. Among the rarest {noun}s the smallest is {_short(medians['rare'][-1])}, among the "
        f"most typical {_short(medians['typical'][-1])}.",
        f"Bands hold the middle 50% and 90% of the {noun}s at each rank; the score is the sum of the logs of the "
        f"values of {'an image' if noun == 'image' else 'a clip'}. "
        + (f"{nulls} of {nulls + len(ranks)}, zero by the encoder's construction, left out. " if nulls else "")
        + (f"Bands are over {MOST_SPECTRA:,} {noun}s drawn at random. " if len(table) > MOST_SPECTRA else "")
        + (f"{missing:,} {noun}s whose scores are predicted have no spectrum." if missing else ""),
        x,
        y,
        marks,
        (
            Key("line", "ink", "median"),
            Key("area", "core", "middle 50%"),
            Key("area", "band", "middle 90%"),
            Key("line", "rare", "median of the rarest 5%"),
            Key("line", "typical", "median of the most typical 5%"),
        ),
        tuple(
            Spot(
                round(100 * float(x.place(ranks[i])), 2),
                f"rank {ranks[i]}: median {_short(median[i])}, 90% between {_short(low[i])} and {_short(high[i])}",
            )
            for i in kept
        ),
        ("rank", "5%", "median", "95%", "rarest", "most typical"),
        tuple(
            (
                str(ranks[i]),
                *(_short(float(curve[i])) for curve in (low, median, high, medians["rare"], medians["typical"])),
            )
            for i in picks
        ),
    )


def against_complexity(table: ScoreTable, rows: np.ndarray, bits: np.ndarray) -> Chart | None:
    """Scores of some rows against their JPEG bits per pixel."""
    known = np.isfinite(bits)
    scores, bits, keys = table.scores["score"][rows][known], bits[known], table.keys[rows][known]
    if len(bits) < 10 or np.ptp(bits) == 0:
        return None
    correlation = spearman(bits, scores)
    x = Axis("JPEG bits per pixel", *spread([bits]))
    y = Axis("score, nats", *spread([scores]))
    order = np.argsort(bits)
    groups = np.array_split(order, max(2, min(12, len(bits) // 8)))
    middle_x = np.array([np.median(bits[g]) for g in groups])
    middle_y = np.array([np.median(scores[g]) for g in groups])
    shown = drawn_rows(len(bits), MOST_DOTS)
    strength = abs(correlation)
    words = "hardly follows" if strength < 0.2 else "partly follows" if strength < 0.5 else "largely follows"
    direction = "" if strength < 0.2 else f", more complex images scoring {'lower' if correlation < 0 else 'higher'}"
    return Chart(
        "complexity",
        f"Score against image complexity, {isolated(table.name)}",
        f"Spearman rank correlation {number(correlation, 2)} over {len(bits):,} images: the score {words} complexity.",
        f"Spearman {number(correlation, 2)} over {len(bits):,} images: the score {words} complexity{direction}. "
        "Bits per pixel are those of what the encoder sees. The line joins medians of equal shares of the images."
        + (f" Dots are {MOST_DOTS:,} of them, drawn at random." if len(bits) > MOST_DOTS else ""),
        x,
        y,
        (
            Mark("dots", "ink", dots(x, y, bits[shown], scores[shown])),
            Mark("line", "accent", line(x, y, middle_x, middle_y)),
        ),
        (Key("dots", "ink", "an image"), Key("line", "accent", "median")),
        header=("bits per pixel", "median score"),
        rows=tuple((number(a, 2), number(b)) for a, b in zip(middle_x, middle_y, strict=True)),
        points=points(
            x,
            y,
            bits[shown],
            scores[shown],
            [
                f"{isolated(str(keys[i]))}: {number(float(bits[i]), 2)} bits, score {number(float(scores[i]))}"
                for i in shown
            ],
        ),
    )


def ranks_of(pair: Agreement, index: int) -> Chart:
    """Percentiles of the same images under two models."""
    x, y = (Axis(f"percentile by {isolated(name)}", 0, 100) for name in (pair.first, pair.second))
    shown = drawn_rows(pair.count, MOST_DOTS)
    return Chart(
        f"agreement-{index}",
        f"{isolated(pair.first)} and {isolated(pair.second)}",
        f"Spearman {number(pair.spearman, 2)} over {pair.count:,} {pair.noun}s; {pair.rare_overlap:.0%} of the rarest "
        f"and {pair.typical_overlap:.0%} of the most typical 5% are shared.",
        f"A dot for each {pair.noun}, at its percentile under both models. Spearman {number(pair.spearman, 2)}."
        + (f" Dots are {MOST_DOTS:,} of them, drawn at random." if pair.count > MOST_DOTS else ""),
        x,
        y,
        (
            Mark("rule", "faint", f"M0 {1000}L1000 0"),
            Mark("dots", "accent", dots(x, y, pair.ranks[shown, 0], pair.ranks[shown, 1])),
        ),
        points=points(
            x,
            y,
            pair.ranks[shown, 0],
            pair.ranks[shown, 1],
            [f"{isolated(pair.keys[i])}: {pair.ranks[i, 0]:.1f}% and {pair.ranks[i, 1]:.1f}%" for i in shown],
        ),
    )


def _edges(values: Sequence[np.ndarray]) -> np.ndarray:
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    widest = max(values, key=len)
    count = len(np.histogram_bin_edges(widest, "fd", (low, high))) - 1
    return np.linspace(low, high, max(12, min(MOST_BINS, count)) + 1)


def _zones(x: Axis, y: Axis, edges: np.ndarray, share: np.ndarray, values: np.ndarray) -> list[Mark]:
    """One histogram in three tones: the rarest 5%, the middle, the most typical 5%."""
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    middles = (edges[:-1] + edges[1:]) / 2
    tones = np.where(middles <= low, "rare", np.where(middles >= high, "typical", "middle"))
    tones[0], tones[-1] = "rare", "typical"
    marks = []
    for tone in ("rare", "middle", "typical"):
        at = np.flatnonzero(tones == tone)
        if len(at):
            part = edges[at[0] : at[-1] + 2], share[at[0] : at[-1] + 1]
            marks.append(Mark("column", tone, steps(x, y, *part, closed=True)))
    return marks


def _rows_of(mask: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(mask)
    return rows[drawn_rows(len(rows), MOST_SPECTRA)]


def _short(value: float) -> str:
    return f"{value:.3g}".replace("e-0", "e-").replace("-", MINUS)
