"""Where a vision transformer may start: with attention that looks like trained attention."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders import ViTSpec
from jepa_jax.encoders.parameters import Params


def mimetic(spec: ViTSpec, params: Params, seed: int) -> Params:
    """Attention that starts as trained attention looks (Trockman & Kolter 2023, arXiv 2305.09828).

    Queries and keys agree (Q K^T is near the identity), values and outputs subtract (V O is near minus the identity),
    and positions are sines and cosines, so that a token first attends to itself and its neighbours.
    """
    rng = np.random.default_rng(seed)
    width, head_width = spec.width, spec.head_width
    blocks = {}
    for i, block in params["blocks"].items():
        queries, keys = [], []
        for _ in range(spec.heads):
            q, k = _factors(0.2 * _noise(rng, width) + 0.7 * np.eye(width))
            queries.append(q[:, :head_width])
            keys.append(k[:head_width].T)
        value, out = _factors(0.4 * _noise(rng, width) - 0.4 * np.eye(width))
        qkv = block["attention"]["qkv"] | {"kernel": _float32(np.concatenate([*queries, *keys, value], axis=1))}
        attention = block["attention"] | {"qkv": qkv, "out": block["attention"]["out"] | {"kernel": _float32(out)}}
        blocks[i] = block | {"attention": attention}
    if spec.rotary_base is not None:
        return params | {"blocks": blocks}
    positions = np.zeros(params["position_embedding"].shape)
    positions[spec.class_positions :] = 0.3 * _waves(spec.native_grid, width)
    return params | {"blocks": blocks, "position_embedding": _float32(positions)}


def _noise(rng: np.random.Generator, width: int) -> np.ndarray:
    return rng.normal(size=(width, width)) / math.sqrt(width)


def _factors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two factors of a matrix with equal singular values, the largest first."""
    u, s, vt = np.linalg.svd(matrix)
    return u * np.sqrt(s), np.sqrt(s)[:, None] * vt


def _waves(grid: int, width: int) -> np.ndarray:
    """Sines and cosines of rows and columns, [grid^2, width]."""
    axis = np.arange(grid) * 8 * np.pi / grid
    frequencies = 1e-4 ** (np.arange(width // 4) / (width / 4))
    angles = axis[:, None] * frequencies
    one = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # [grid, width / 2]
    rows, columns = np.repeat(one, grid, axis=0), np.tile(one, (grid, 1))
    return np.pad(np.concatenate([rows, columns], axis=1), ((0, 0), (0, width - 2 * one.shape[1])))


def _float32(array: np.ndarray) -> jax.Array:
    return jnp.asarray(array, jnp.float32)
