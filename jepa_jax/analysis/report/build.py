"""From score tables to one self-contained HTML page."""

from __future__ import annotations

import base64
import collections
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from jepa_jax._version import __version__
from jepa_jax.analysis.agreement import EXTREME_SHARE, agreements
from jepa_jax.analysis.groups import group_names
from jepa_jax.analysis.report import figures
from jepa_jax.analysis.report.charts import Chart, number
from jepa_jax.analysis.report.explorer import Listing, listing
from jepa_jax.analysis.report.gallery import choose, galleries
from jepa_jax.analysis.report.looks import RULES, Look, look_at
from jepa_jax.analysis.report.names import bdi, isolated
from jepa_jax.analysis.report.near_duplicates import compared_rows, near_duplicates
from jepa_jax.analysis.report.pictures import MOST_BYTES, read_pictures
from jepa_jax.errors import ArgumentError
from jepa_jax.scored.image_reader import ImageReader
from jepa_jax.scored.table import ScoreTable, drawn_rows, shared_noun

MOST_FAILURES = 50
"""Failures that are listed one by one; the rest are counted by reason."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        title: of the page; by default the question how typical these images, or clips, are.
        group_by: see `groups.group_names`.
        per_shelf: thumbnails in a row of the gallery.
        most_groups: groups in the gallery, the largest first.
        complexity_images: images per set, drawn at random, that complexity is measured on, and of which those that
            are dark, blank, blurred or tiny are counted; 0 for none.
        extremes: rarest images, and as many most typical ones, whose pictures the list of all images has; fewer where
            the page would grow over 20 MB.
    """

    title: str | None = None
    group_by: str | None = None
    per_shelf: int = 8
    most_groups: int = 12
    complexity_images: int = 1500
    extremes: int = 150


def build_report(
    tables: Sequence[ScoreTable],
    options: ReportOptions | None = None,
    readers: Mapping[str, ImageReader] | None = None,
) -> str:
    """One HTML page about scored sets: several sets by one encoder, one set by several, or both.

    Args:
        tables: at least one; names must differ.
        options: see `ReportOptions`.
        readers: of the sets' images, by the set's name; by default where the jobs found them.

    Returns:
        The page; it refers to nothing outside itself.

    Raises:
        ArgumentError: no table, equal names, or groups that cannot be formed.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    options = options or ReportOptions()
    names = [table.name for table in tables]
    if not names or len(set(names)) < len(names):
        raise ArgumentError(
            f"the sets are named {', '.join(names) or '(none)'}; give one at least, each its own name."
        )
    environment = Environment(
        loader=PackageLoader("jepa_jax.analysis.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bdi": bdi, "isolated": isolated}
    files = resources.files("jepa_jax.analysis.report") / "templates"
    style, script = (files / "report.css").read_text(), (files / "report.js").read_text()
    noun = shared_noun(tables)
    return environment.get_template("report.html.j2").render(
        title=options.title or f"How typical are these {noun}s?",
        noun=noun,
        policy=_policy(style, script),
        style=style,
        script=script,
        version=__version__,
        **_content(tables, options, readers or {}),
    )


def _policy(style: str, script: str) -> str:
    """The page's Content-Security-Policy: its own script, style and pictures, and nothing else, whatever names hold.

    Marks and thumbnails are placed by attributes of their own, which ``style-src-attr`` allows; ``style-src`` is for
    browsers that know no such distinction.
    """

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {digest(script)}; style-src 'unsafe-inline'; style-src-elem {digest(style)}; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _content(tables: Sequence[ScoreTable], options: ReportOptions, given: Mapping[str, ImageReader]) -> dict[str, Any]:
    """What the template shows."""
    readers = {table.name: given.get(table.name) or ImageReader.of(table) for table in tables}
    by_encoder: dict[str, list[ScoreTable]] = collections.defaultdict(list)
    for table in tables:
        by_encoder[table.encoder_id].append(table)
    pairs = agreements(tables)
    sets = [_set(table, readers[table.name], options, i, len(tables)) for i, table in enumerate(tables)]
    return {
        "facts": [_facts(table) for table in tables],
        "histograms": _numbered([figures.histogram(group) for group in by_encoder.values()]),
        "spectra": _numbered([chart for table in tables if (chart := figures.spectrum(table)) is not None]),
        "complexities": _numbered([one.complexity for one in sets if one.complexity is not None]),
        "galleries": [one.gallery for one in sets],
        "listings": [one.listing for one in sets],
        "conditions": [one.condition for one in sets],
        "rules": RULES,
        "agreements": pairs,
        "extreme_share": EXTREME_SHARE,
        "rank_charts": [figures.ranks_of(pair, i) for i, pair in enumerate(pairs)],
        "failures": [_failures(table) for table in tables if table.failures],
        "whole": all(table.manifest.get("complete", True) for table in tables),
    }


@dataclass(frozen=True)
class _Set:
    """What is shown of one table."""

    gallery: dict[str, Any]
    listing: Listing
    complexity: Chart | None
    condition: dict[str, Any]


def _set(table: ScoreTable, reader: ImageReader | None, options: ReportOptions, index: int, sets: int) -> _Set:
    names = group_names(table, options.group_by)
    frames = 1 if reader is None else reader.shown
    scores = table.scores["score"]
    alike = [] if table.embedding is None else near_duplicates(table.embedding, scores)
    choice = choose(table, names, alike, per_shelf=options.per_shelf, most_groups=options.most_groups)
    in_gallery = [row for _, shelves in choice.values() for _, _, rows in shelves for row in rows]
    order = np.argsort(scores, kind="stable")
    ends = np.stack([order, order[::-1]], axis=1)[: min(options.extremes, (len(order) + 1) // 2)].ravel().tolist()
    pictures = read_pictures(reader, table, list(dict.fromkeys(in_gallery + ends)), MOST_BYTES // sets)
    drawn = drawn_rows(len(table), options.complexity_images)
    looks: list[Look | None] = [None] * len(drawn)
    if reader is not None and frames == 1 and options.complexity_images:
        looks = look_at(reader, [str(key) for key in table.keys[drawn]])
    bits = np.array([np.nan if look is None else look.bits for look in looks])
    faults = {row: shown.faults for row, shown in pictures.items()}
    faults |= {int(row): look.faults for row, look in zip(drawn, looks, strict=True) if look is not None}
    total = 0 if names is None else len(set(names))
    gallery = {
        "name": table.name,
        "noun": table.noun,
        "groups": galleries(table, choice, pictures, alike, f"gallery-{index}"),
        "left_out": max(0, total - options.most_groups),
        "pictures": reader is not None,
        "frames": frames,
        "unread": reader is not None and any(row not in pictures for row in in_gallery),
    }
    return _Set(
        gallery,
        listing(table, pictures, set(in_gallery) & set(pictures), alike, faults, names, frames),
        figures.against_complexity(table, drawn, bits),
        _condition(table, looks, alike),
    )


def _condition(table: ScoreTable, looks: Sequence[Look | None], alike: Sequence[np.ndarray]) -> dict[str, Any]:
    """How many pictures are dark, blank and so on, and how many are near-duplicates, in words that say of how many."""
    seen = [look for look in looks if look is not None]
    counts = collections.Counter(word for look in seen for word in look.faults)
    compared = len(compared_rows(table.scores["score"]))
    return {
        "name": table.name,
        "noun": table.noun,
        "seen": number(len(seen), 0),
        "all": len(seen) == len(table),
        "counts": [(word, number(counts[word], 0), RULES[word]) for word in RULES] if seen else [],
        "embedding": table.embedding is not None,
        "groups": number(len(alike), 0),
        "alike": number(sum(map(len, alike)), 0),
        "compared": number(compared, 0),
        "compared_all": compared == len(table),
    }


def _facts(table: ScoreTable) -> dict[str, Any]:
    """Summary and run details of one table."""
    scores = table.scores["score"]
    low, median, high = np.quantile(scores, [0.05, 0.5, 0.95])
    pinned = table.manifest.get("pinned", {})
    details = {
        "encoder": table.encoder,
        "encoder digest": str(pinned.get("encoder_digest", ""))[:16],
        "input side": f"{pinned['image_size']} px" if "image_size" in pinned else "",
        "frames of a clip": pinned.get("preprocessing", {}).get("frames"),
        "precision": pinned.get("precision", ""),
        f"views of each {table.noun}": pinned["views"] if pinned.get("views", 1) > 1 else "",
        "singular values in the score": _rank(table),
        "scores": _methods(table),
        f"{table.noun}s from": table.origin,
        "device": table.manifest.get("device", ""),
        "jepa_jax, jax": ", ".join(str(pinned[name]) for name in ("jepa_jax", "jax") if name in pinned),
    }
    return {
        "name": table.name,
        "encoder": table.encoder,
        "count": number(len(table), 0),
        "nouns": table.noun + "s" * (len(table) != 1),
        "were": "was" if len(table) == 1 else "were",
        "failed": number(len(table.failures), 0),
        "median": number(float(median)),
        "low": number(float(low)),
        "high": number(float(high)),
        "rarest": str(table.keys[int(np.argmin(scores))]),
        "typical": str(table.keys[int(np.argmax(scores))]),
        "details": {name: value for name, value in details.items() if value not in ("", None)},
    }


def _methods(table: ScoreTable) -> str:
    """How many scores are exact, predicted, and of unfamiliar images; empty where all are exact."""
    if "method" not in table.groups:
        return ""
    predicted = int(table.predicted.sum())
    unfamiliar = 0 if table.unfamiliar is None else int(table.unfamiliar.sum())
    said = f"{number(len(table) - predicted, 0)} exact, {number(predicted, 0)} predicted from one forward pass"
    return said + (f"; {number(unfamiliar, 0)} of unfamiliar {table.noun}s" if unfamiliar else "")


def _rank(table: ScoreTable) -> str:
    if table.singular_values is None:
        return ""
    total = table.singular_values.shape[1]
    return f"{total - table.null_directions} of {total}"


def _failures(table: ScoreTable) -> dict[str, Any]:
    reasons = collections.Counter(failure["reason"] for failure in table.failures)
    return {
        "name": table.name,
        "count": number(len(table.failures), 0),
        "reasons": [(reason, number(count, 0)) for reason, count in reasons.most_common(MOST_FAILURES)],
        "listed": table.failures[:MOST_FAILURES],
        "left_out": max(0, len(table.failures) - MOST_FAILURES),
    }


def _numbered(charts: Sequence[Chart]) -> list[tuple[str, Chart]]:
    """Each chart with an anchor of its own."""
    return [(f"{chart.name}-{i}", chart) for i, chart in enumerate(charts)]
