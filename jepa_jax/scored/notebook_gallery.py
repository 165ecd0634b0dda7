"""Scored images as a notebook shows them: pictures in two rows, in HTML without style sheet or script."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from PIL import Image

from jepa_jax.errors import printable

if TYPE_CHECKING:
    from jepa_jax.scored.scored_images import ScoredImages

PER_ROW = 8
SIDE = 110
"""Pixels of a picture, at most; of a clip, of each of its frames, which stand in a row."""


def gallery(scored: ScoredImages, title: str) -> str:
    """The rarest and the most typical images with their scores; of few images all, the rarest first."""
    order = scored.order().tolist()
    if len(order) <= 2 * PER_ROW:
        rows = [("Rarest first", order)] if order else []
    else:
        rows = [("Rarest", order[:PER_ROW]), ("Most typical", order[::-1][:PER_ROW])]
    parts = [f"<p>{html.escape(title)}</p>", *(_row(scored, name, picked) for name, picked in rows)]
    return f'<div style="font-family:sans-serif;font-size:13px">{"".join(parts)}</div>'


def _row(scored: ScoredImages, name: str, rows: Iterable[int]) -> str:
    keys, scores = scored.keys, scored.scores
    tiles = "".join(_tile(keys[row], float(scores[row]), scored.picture(row, SIDE)) for row in rows)
    return (
        f'<div style="margin:6px 0"><b>{name}</b></div><div style="display:flex;flex-wrap:wrap;gap:8px">{tiles}</div>'
    )


def _tile(key: str, score: float, picture: Image.Image | None) -> str:
    shown, width = html.escape(printable(key)), SIDE if picture is None else max(SIDE, picture.width)
    if picture is None:
        image = f'<div style="width:{SIDE}px;height:{SIDE}px;background:#8884"></div>'
    else:
        image = f'<img src="{data_uri(picture)}" alt="{shown}" style="max-width:{width}px">'
    return (
        f'<figure style="margin:0;width:{width}px" title="{shown}">{image}<figcaption style="overflow:hidden;'
        f'text-overflow:ellipsis;white-space:nowrap"><b>{score:.1f}</b> {shown}</figcaption></figure>'
    )


def data_uri(picture: Image.Image, quality: int = 60) -> str:
    """A picture as WebP within an address."""
    sink = io.BytesIO()
    picture.save(sink, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(sink.getvalue()).decode()
