"""Resized position embeddings are those of `torch.nn.functional.interpolate`."""

from __future__ import annotations

import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from jepa_jax.encoders.specs import PositionResize
from jepa_jax.layers.positions import resize_matrix, resize_positions

METHODS = typing.get_args(PositionResize)

# Sample points lie at up to 40 pixels, so their float64 rounding is 4e-15, and four taps (sixteen in two
# dimensions), whose slopes are below 2, carry it into the weights.
TOLERANCE = 1e-13


def torch_resize(positions: np.ndarray, grid: tuple[int, int], method: str) -> np.ndarray:
    """[rows, columns, d] to [*grid, d] in float64, as the reference implementation of the method calls it."""
    old = positions.shape[:2]
    arguments: dict[str, Any] = {
        "bicubic": {"size": grid},
        "bicubic_antialias": {"size": grid, "antialias": True},
        "bicubic_offset": {"scale_factor": tuple((new + 0.1) / side for new, side in zip(grid, old, strict=True))},
    }[method]
    channels_first = torch.from_numpy(positions).permute(2, 0, 1)[None]
    resized = functional.interpolate(channels_first, mode="bicubic", align_corners=False, **arguments)
    return resized[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("old", [1, 2, 3, 4, 7, 16, 37])
def test_matrix_up_and_down(method: PositionResize, old: int):
    # Each source row holds its own unit vector, so the resized rows are those of the matrix. Two equal columns
    # stay as they are; of a single one, PyTorch 2.13 antialiases rows wrongly.
    unit_rows = np.repeat(np.eye(old)[:, None, :], 2, axis=1)
    for new in range(1, 41):
        # At the native grid an embedding is left alone, and the offset would not.
        if new != old or method != "bicubic_offset":
            expected = torch_resize(unit_rows, (new, 2), method)[:, 0]
            np.testing.assert_allclose(resize_matrix(old, new, method), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", [(3, 11), (11, 3), (7, 16), (16, 16), (1, 1)])
def test_positions_of_any_grid(method: PositionResize, grid: tuple[int, int]):
    positions = np.random.default_rng(0).standard_normal((7, 7, 5))
    with jax.enable_x64(True):
        resized = resize_positions(jnp.asarray(positions), grid, method)
        assert resized.dtype == jnp.float64
    expected = torch_resize(positions, grid, method)
    np.testing.assert_allclose(resized, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_native_grid_is_untouched(method: PositionResize):
    positions = jnp.asarray(np.random.default_rng(0).standard_normal((7, 7, 5)), jnp.float32)
    resized = resize_positions(positions, (7, 7), method)
    np.testing.assert_array_equal(np.asarray(resized).view(np.uint32), np.asarray(positions).view(np.uint32))
