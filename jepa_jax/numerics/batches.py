"""Batches of one size: filled up with copies of their last example, and cut again."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def filled(batch: Any, size: int) -> Any:
    """A batch [B, ...] as [size, ...], for programs of one size. A copy is a sound example, unlike zeros."""
    surplus = size - batch.shape[0]
    if surplus == 0:
        return batch
    kind = np if isinstance(batch, np.ndarray) else jnp
    return kind.concatenate([batch, kind.repeat(batch[-1:], surplus, axis=0)])


def cut(results: Any, size: int) -> Any:
    """The results of the first examples: each leaf [size, ...]."""
    return jax.tree.map(lambda leaf: leaf[:size], results)


def multiple(size: int, of: int) -> int:
    """The least multiple that is no smaller."""
    return -(-size // of) * of
