"""The rotary position embedding of V-JEPA 2, along time, rows and columns.

A head of dh values has three parts of 2 floor(dh / 6) values, turned by a patch's time, row and column; what is left
of it stands still. Times, rows and columns are counted from 0: nothing is stored for a grid, and nothing is scaled to
one. In a part of n values, values 2i and 2i + 1 are a pair, and value e turns by the angle

    position * 10000^(-2 k / n),    k = e mod n / 2.

So the two values of a pair turn by different angles: the published code repeats its n / 2 angles one row after the
other where its pairs are neighbours. The weights were trained with it, in both that code and `transformers`, and it is
done here as it is there. It is no rotation then, and its transpose is not its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_jax.layers.rotary import Grid

AXES = 3
"""Time, row, column."""

LEAST_HEAD = 2 * AXES
"""A head has one pair of values an axis at least."""


@dataclass(frozen=True)
class TubeletRotary:
    """What the angles are made of.

    Attributes:
        base: 10000 for all that is published.
    """

    base: float

    def angles(self, grid: Grid, head_width: int) -> np.ndarray:
        """See `jepa_jax.layers.rotary.Rotary`; the grid has times, rows and columns."""
        positions = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, AXES)
        pairs = head_width // AXES // 2
        frequencies = np.tile(self.base ** (-np.arange(pairs) / pairs), 2)
        turned = (positions[:, :, None] * frequencies).reshape(len(positions), -1)
        whole = np.pad(turned, ((0, 0), (0, head_width - turned.shape[1])))
        return whole[:, self.order(head_width)]

    def order(self, head_width: int) -> np.ndarray:
        """See `jepa_jax.layers.rotary.Rotary`: the first of each pair, then the second."""
        return np.arange(head_width).reshape(-1, 2).T.reshape(-1)
