"""How complex a picture is for a JPEG coder: the plainest explanation that a density score has to beat.

Scores of generative and other density models follow image complexity (Serrà et al. 2020). So beside any separation of
two sets stands what complexity alone does, and what is left of the score when complexity is regressed out.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jepa_jax.analysis.metrics import auroc, spearman
from jepa_jax.errors import ArgumentError
from jepa_jax.scored.image_reader import ImageReader

JPEG_QUALITY = 75
"""Pillow's own default; chroma is subsampled 4:2:0."""


@dataclass(frozen=True)
class ComplexityControl:
    """What complexity explains of a score.

    Attributes:
        spearman_in, spearman_out: rank correlation of score and complexity within each set.
        auroc_complexity: of bits per pixel alone, simpler = more typical.
        auroc_residual: of the score after a straight line in bits per pixel, fitted on the reference, is taken off.
        slope: of that line, nats per bit per pixel.
        covered_out: share of the out-set whose complexity lies within the reference's range; where it is small, the
            line is extrapolated and the residuals mean little.
    """

    spearman_in: float
    spearman_out: float
    auroc_complexity: float
    auroc_residual: float
    slope: float
    covered_out: float


def bits_per_pixel(picture: Image.Image) -> float:
    """Size of an RGB picture's JPEG file without its header, over its number of pixels."""
    return 8 * max(_jpeg_bytes(picture) - _header_bytes(), 0) / (picture.width * picture.height)


def _jpeg_bytes(picture: Image.Image) -> int:
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=JPEG_QUALITY)
    return sink.tell()


@functools.cache
def _header_bytes() -> int:
    """Quantisation and Huffman tables, the same in every file: what is left of one black block, nearly."""
    return _jpeg_bytes(Image.new("RGB", (16, 16)))


def measure(reader: ImageReader, keys: Sequence[str], workers: int = 2) -> np.ndarray:
    """[N] bits per pixel of what the encoder sees of each image; NaN where it cannot be read."""

    def one(key: str) -> float:
        picture = reader.seen(key)
        return float("nan") if picture is None else bits_per_pixel(picture)

    with ThreadPoolExecutor(workers) as pool:
        return np.array(list(pool.map(one, keys)), np.float64)


def control(
    scores: tuple[np.ndarray, np.ndarray, np.ndarray], complexity: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> ComplexityControl:
    """Judge a score against complexity.

    Args:
        scores: of reference, in-set and out-set.
        complexity: bits per pixel of the same images; images with NaN are left out.

    Raises:
        ArgumentError: fewer than three images of a set are left.
    """
    from sklearn.linear_model import LinearRegression

    known = [np.isfinite(c) for c in complexity]
    if min(int(mask.sum()) for mask in known) < 3:
        raise ArgumentError("complexity needs three readable images of every set.")
    (s_ref, s_in, s_out), (c_ref, c_in, c_out) = (
        [values[mask] for values, mask in zip(group, known, strict=True)] for group in (scores, complexity)
    )
    line = LinearRegression().fit(c_ref[:, None], s_ref)
    left_in, left_out = (s - line.predict(c[:, None]) for s, c in ((s_in, c_in), (s_out, c_out)))
    return ComplexityControl(
        spearman_in=spearman(s_in, c_in),
        spearman_out=spearman(s_out, c_out),
        auroc_complexity=auroc(-c_in, -c_out),
        auroc_residual=auroc(left_in, left_out),
        slope=float(line.coef_[0]),
        covered_out=float(np.mean((c_out >= c_ref.min()) & (c_out <= c_ref.max()))),
    )
