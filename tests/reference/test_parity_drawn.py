"""Odd configurations of every family, drawn at random: the embedding equals PyTorch's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import torch_families as families
import torch_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

import jepa_jax as jj

TOLERANCE = 1e-5  # as argued in test_parity_families


@st.composite
def shapes(draw: st.DrawFn, rotary: bool = False) -> dict[str, Any]:
    """What every family's models have."""
    heads = draw(st.integers(1, 5))
    patch_size = draw(st.integers(1, 9))
    return {
        "width": heads * draw(st.sampled_from([4, 8, 12, 20]) if rotary else st.integers(2, 7)),
        "heads": heads,
        "depth": draw(st.integers(1, 3)),
        "patch_size": patch_size,
        "image_size": patch_size * draw(st.integers(1, 5)),
        "mlp_width": draw(st.integers(1, 50)),
        "seed": draw(st.integers(0, 2**31)),
    }


sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))


def check(model: Any, patch_size: int, patches: tuple[int, int], l2_normalize: bool = False) -> None:
    """Embeddings of two images of so many patches."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = jj.load_encoder(
            families.save_folder(model, Path(folder) / "model"), image_size=patch_size, l2_normalize=l2_normalize
        )
    batch = np.random.default_rng(0).normal(0, 0.3, (2, *(patch_size * n for n in patches), 3)).astype(np.float32)
    expected = reference.torch_embedding(model, batch, torch.float64)
    found = np.asarray(encoder(batch))
    jax.clear_caches()
    assert np.linalg.norm(found - expected) <= TOLERANCE * np.linalg.norm(expected)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(shape=shapes(), patches=sizes, qkv_bias=st.booleans(), norm_eps=st.sampled_from([1e-6, 1e-12]))
def test_ijepa(shape: dict[str, Any], patches: tuple[int, int], qkv_bias: bool, norm_eps: float):
    model = families.random_ijepa(**shape, qkv_bias=qkv_bias, norm_eps=norm_eps)
    check(model, shape["patch_size"], patches)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    shape=shapes(),
    patches=sizes,
    projection=st.integers(1, 40),
    activation=st.sampled_from(["gelu", "quick_gelu"]),
    l2_normalize=st.booleans(),
)
def test_clip(shape: dict[str, Any], patches: tuple[int, int], projection: int, activation: str, l2_normalize: bool):
    model = families.random_clip(**shape, projection=projection, activation=activation, l2_normalize=l2_normalize)
    check(model, shape["patch_size"], patches, l2_normalize)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    shape=shapes(rotary=True),
    patches=sizes,
    registers=st.integers(0, 3),
    gated=st.booleans(),
    biases=st.sampled_from([(True, False), (True, True), (False, False)]),
    base=st.sampled_from([100.0, 3.0, 10_000.0]),
)
def test_dinov3(shape: dict[str, Any], patches: tuple[int, int], **options: Any):
    check(families.random_dinov3(**shape, **options), shape["patch_size"], patches)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    heads=st.integers(1, 5),
    head_width=st.integers(2, 7),
    depth=st.integers(1, 3),
    native=st.integers(1, 5),
    patches=sizes,
    registers=st.booleans(),
    swiglu=st.booleans(),
)
def test_dinov2(
    heads: int, head_width: int, depth: int, native: int, patches: tuple[int, int], registers: bool, swiglu: bool
):
    model = reference.random_dinov2(
        heads * head_width,
        heads,
        depth,
        image_size=native * reference.PATCH,
        registers=registers,
        swiglu=swiglu,
    )
    check(model, reference.PATCH, patches)
