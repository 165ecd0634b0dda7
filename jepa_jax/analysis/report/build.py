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
from jepa_jax.analysis import complexity
from jepa_jax.analysis.agreement import EXTREME_SHARE, agreements
from jepa_jax.analysis.groups import group_names
from jepa_jax.analysis.images import ImageReader
from jepa_jax.analysis.report import figures
from jepa_jax.analysis.report.charts import Chart, number
from jepa_jax.analysis.report.gallery import galleries
from jepa_jax.analysis.report.names import bdi, isolated
from jepa_jax.analysis.table import ScoreTable, drawn_rows
from jepa_jax.errors import ArgumentError

MOST_FAILURES = 50
"""Failures that are listed one by one; the rest are counted by reason."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        title: of the page.
        group_by: see `groups.group_names`.
        per_shelf: thumbnails in a row of the gallery.
        most_groups: groups in the gallery, the largest first.
        complexity_images: images per set that complexity is measured on; 0 for none.
    """

    title: str = "How typical are these images?"
    group_by: str | None = None
    per_shelf: int = 8
    most_groups: int = 12
    complexity_images: int = 1500


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
    return environment.get_template("report.html.j2").render(
        title=options.title,
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
    return {
        "facts": [_facts(table) for table in tables],
        "histograms": _numbered([figures.histogram(group) for group in by_encoder.values()]),
        "spectra": _numbered([chart for table in tables if (chart := figures.spectrum(table)) is not None]),
        "complexities": _numbered(_complexities(tables, readers, options)),
        "galleries": [_gallery(table, readers[table.name], options, i) for i, table in enumerate(tables)],
        "agreements": pairs,
        "extreme_share": EXTREME_SHARE,
        "rank_charts": [figures.ranks_of(pair, i) for i, pair in enumerate(pairs)],
        "failures": [_failures(table) for table in tables if table.failures],
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
        "views of each image": pinned["views"] if pinned.get("views", 1) > 1 else "",
        "singular values in the score": _rank(table),
        "images from": table.origin,
        "device": table.manifest.get("device", ""),
        "jepa_jax, jax": ", ".join(str(pinned[name]) for name in ("jepa_jax", "jax") if name in pinned),
    }
    return {
        "name": table.name,
        "encoder": table.encoder,
        "count": number(len(table), 0),
        "plural": "" if len(table) == 1 else "s",
        "failed": number(len(table.failures), 0),
        "median": number(float(median)),
        "low": number(float(low)),
        "high": number(float(high)),
        "rarest": str(table.keys[int(np.argmin(scores))]),
        "typical": str(table.keys[int(np.argmax(scores))]),
        "details": {name: value for name, value in details.items() if value not in ("", None)},
    }


def _rank(table: ScoreTable) -> str:
    if table.singular_values is None:
        return ""
    total = table.singular_values.shape[1]
    return f"{total - table.null_directions} of {total}"


def _gallery(table: ScoreTable, reader: ImageReader | None, options: ReportOptions, index: int) -> dict[str, Any]:
    names = group_names(table, options.group_by)
    groups = galleries(
        table,
        names,
        reader,
        per_shelf=options.per_shelf,
        most_groups=options.most_groups,
        prefix=f"gallery-{index}",
    )
    total = 0 if names is None else len(set(names))
    return {
        "name": table.name,
        "groups": groups,
        "left_out": max(0, total - options.most_groups),
        "pictures": reader is not None,
        "frames": 1 if reader is None else reader.shown,
    }


def _complexities(
    tables: Sequence[ScoreTable], readers: dict[str, ImageReader | None], options: ReportOptions
) -> list[Chart]:
    charts = []
    for table in tables:
        reader = readers[table.name]
        if reader is None or reader.recipe.frames is not None or not options.complexity_images:
            continue
        rows = drawn_rows(len(table), options.complexity_images)
        bits = complexity.measure(reader, [str(key) for key in table.keys[rows]])
        chart = figures.against_complexity(table, rows, bits)
        if chart is not None:
            charts.append(chart)
    return charts


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
