"""Tokens of an image: patches with their positions, behind a class token and registers.

Position embeddings are resized to another patch grid as the reference implementations do it.

A resize is linear in the embeddings and separable, so it is two small matrices, built here in
float64. Three ways are in use, and they give different embeddings:

* ``bicubic_offset``: the official DINOv2 without registers. Bicubic with Catmull-like a = -0.75 and
  no antialiasing; source coordinates use the scale (new + 0.1) / old (``interpolate_offset``).
* ``bicubic``: ``transformers`` for DINOv2 without registers, I-JEPA and CLIP. The same kernel, with the
  scale new / old.
* ``bicubic_antialias``: DINOv2 with registers, official and ``transformers`` alike, and OpenCLIP.
  Bicubic with a = -0.5, widened by the scale when it shrinks.

At the native grid all three leave the embeddings untouched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.layers.layer import Cost, Layer, Sizes
from jepa_jax.layers.schedule import Schedule
from jepa_jax.numerics.products import Products

PositionResize = Literal["bicubic_offset", "bicubic", "bicubic_antialias"]
"""How position embeddings are resized to another patch grid; see the text of this module."""

OFFICIAL_OFFSET = 0.1
"""``interpolate_offset`` of the official DINOv2 hub models without registers."""


@dataclass(frozen=True)
class Positions(Layer):
    """Adds positions to patches and puts class token and registers before them. On the way back these fall away.

    Attributes:
        prefix: tokens that stand before the patches, [prefix, d]: class token (with its position), then registers.
        embedding: of the native square grid, [M, M, d]; None where positions are told elsewhere.
        grid: rows and columns of the patches; of clips, whose positions are told elsewhere, times before these.
        resize: how the embedding is fitted to the grid.
    """

    prefix: jax.Array
    embedding: jax.Array | None
    grid: tuple[int, ...]
    resize: PositionResize

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Patches [B, P, d] -> tokens [B, N, d]."""
        patches = tokens
        if self.embedding is not None:
            positions = resize_positions(self.embedding, self.grid, self.resize)
            patches = tokens + positions.reshape(-1, positions.shape[-1])
        prefix = jnp.broadcast_to(self.prefix, (tokens.shape[0], *self.prefix.shape))
        return jnp.concatenate([prefix, patches], axis=1)

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, tuple[()]]:
        """[P, d] -> [N, d]; nothing is kept."""
        return self(tokens[None])[0], ()

    def pullback(
        self, kernels: None, residuals: tuple[()], cotangent: jax.Array, products: Products, schedule: Schedule
    ) -> jax.Array:
        """See `Layer.pullback`: [N, R, d] -> [P, R, d]."""
        del kernels, residuals, products, schedule
        return cotangent[self.prefix.shape[0] :]

    def cost(self, sizes: Sizes) -> Cost:
        """Of resizing, where the grid is not the native one."""
        if self.embedding is None:
            return Cost()
        side, _, width = self.embedding.shape
        if self.grid == (side, side):
            return Cost()
        (rows, columns), values = self.grid, side * width
        least = min(rows * side * values + rows * columns * values, columns * side * values + rows * columns * values)
        return Cost(forward=least)


def resize_positions(positions: jax.Array, grid: tuple[int, ...], method: PositionResize) -> jax.Array:
    """Resize position embeddings [M, M, d] to [rows, columns, d].

    Args:
        positions: embeddings of the native square grid.
        grid: rows and columns wanted.
        method: one of the three ways that the module's text describes.
    """
    side = positions.shape[0]
    if grid == (side, side):
        return positions
    rows, columns = (jnp.asarray(resize_matrix(side, new, method), dtype=positions.dtype) for new in grid)
    return jnp.einsum("rM,cN,MNd->rcd", rows, columns, positions, precision=jax.lax.Precision.HIGHEST)


def resize_matrix(old: int, new: int, method: PositionResize) -> np.ndarray:
    """The matrix [new, old], float64, that resizes one axis."""
    if method == "bicubic_antialias":
        return _antialiased(old, new)
    offset = OFFICIAL_OFFSET if method == "bicubic_offset" else 0.0
    return _interpolating(old, new, step=old / (new + offset))


def _interpolating(old: int, new: int, step: float) -> np.ndarray:
    """Four-tap interpolation; taps beyond the edge repeat the edge."""
    matrix = np.zeros((new, old))
    for i in range(new):
        center = step * (i + 0.5) - 0.5
        first = math.floor(center) - 1
        for tap in range(first, first + 4):
            matrix[i, min(max(tap, 0), old - 1)] += _cubic(tap - center, a=-0.75)
    return matrix


def _antialiased(old: int, new: int) -> np.ndarray:
    """Kernel stretched over the source pixels that one target pixel covers; cut and renormalised at edges."""
    step = old / new
    stretch = max(step, 1.0)
    support = 2.0 * stretch
    matrix = np.zeros((new, old))
    for i in range(new):
        center = step * (i + 0.5)
        first = max(int(center - support + 0.5), 0)
        last = min(int(center + support + 0.5), old)
        for tap in range(first, last):
            matrix[i, tap] = _cubic((tap + 0.5 - center) / stretch, a=-0.5)
    return matrix / matrix.sum(axis=1, keepdims=True)


def _cubic(x: float, a: float) -> float:
    """Keys' cubic convolution kernel."""
    x = abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0
