"""V-JEPA 2 in JAX equals that of transformers: embeddings, blocks, Jacobians, scores.

The tolerances are those of `test_parity_families`, whose argument about rounding holds here as it stands.
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_families as families
import torch_vjepa2 as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import VJEPA2Model

import jepa_jax as jj
from jepa_jax.encoders import ENCODERS
from jepa_jax.encoders.parameters import build_module
from jepa_jax.jacobian.jacobian import embed_with_nulls
from jepa_jax.layers.schedule import SCHEDULES, ScheduleName

FLOAT32_TOLERANCE = 1e-5
FLOAT64_TOLERANCE = 1e-11
FLOAT64_SCORE_TOLERANCE = 1e-8
FLOAT32_SCORE_TOLERANCE = 0.01

# Heads of 18 have three pairs of values an axis, and of 20 two values that stand still: where angles within a pair
# differ, all of it shows.
SHAPE: dict[str, Any] = {
    "width": 36,
    "heads": 2,
    "depth": 2,
    "mlp_ratio": 1.5,
    "patch_size": 4,
    "image_size": 8,
    "frames": 4,
}
TINY: dict[str, dict[str, Any]] = {
    "whole heads": SHAPE,
    "values that stand still": SHAPE | {"width": 40, "mlp_ratio": 2.0},
    "no query, key and value biases, tubelets of three": SHAPE | {"qkv_bias": False, "tubelet": 3, "frames": 6},
}
WIDE = ["vjepa2-large", "vjepa2-huge", "vjepa2-giant"]


@dataclass(frozen=True, eq=False)
class Pair:
    """One model on both sides, and a clip of 2 x 2 x 2 patches."""

    torch_model: VJEPA2Model
    encoder: jj.Encoder

    @functools.cached_property
    def clip(self) -> np.ndarray:
        """Float32 [T, H, W, 3]."""
        vit = self.encoder.spec.vit
        assert vit.tubelet is not None
        shape = 2 * vit.tubelet, 2 * vit.patch_size, 2 * vit.patch_size, 3
        return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)

    @functools.cached_property
    def torch_jacobian(self) -> np.ndarray:
        """[K, T, H, W, 3], float64."""
        return reference.jacobian(self.torch_model, self.clip)

    def stages(self, dtype: str) -> dict[str, np.ndarray]:
        """Every stage of ours."""
        with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
            params = jax.tree.map(lambda leaf: leaf.astype(dtype), self.encoder.params)
            module = build_module(self.encoder.spec.vit, params)
            found = jax.jit(module.intermediates)(jnp.asarray(self.clip[None], dtype))
            return {name: np.asarray(stage) for name, stage in found.items()}

    def jacobian(self, dtype: str, **how: Any) -> np.ndarray:
        """Ours, [K, T, H, W, 3]."""
        with jax.enable_x64(dtype == "float64"):
            return np.asarray(jj.jacobian(self.encoder, self.clip[None].astype(dtype), **how)[0])


def make_pair(shape: dict[str, Any], folder: Path) -> Pair:
    model = reference.random_vjepa2(**shape)
    encoder = jj.load_encoder(families.save_folder(model, folder))
    shutil.rmtree(folder)
    return Pair(model, encoder)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the error over the norm."""
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def assert_forward(pair: Pair) -> None:
    embedding, blocks = reference.stages(pair.torch_model, pair.clip[None])
    assert len(blocks) == pair.encoder.spec.vit.depth
    for dtype, tolerance in (("float32", FLOAT32_TOLERANCE), ("float64", FLOAT64_TOLERANCE)):
        stages = pair.stages(dtype)
        assert error(stages["embedding"], embedding) <= tolerance
        for i, block in enumerate(blocks):
            assert error(stages[f"block_{i}"], block) <= tolerance, i


def assert_scores(pair: Pair) -> None:
    size = pair.encoder.spec.embedding_size
    values = np.linalg.svd(pair.torch_jacobian.reshape(size, -1), compute_uv=False)
    double = jj.score(pair.encoder, pair.clip[None], precision="float64")
    single = jj.score(pair.encoder, pair.clip[None])
    assert double.log_volume_rank == size - 1
    expected = np.log(values[:-1]).sum()
    listed = np.log(np.maximum(values, 1e-6)).sum()
    np.testing.assert_allclose(double.listing_score, [listed], rtol=0, atol=FLOAT64_SCORE_TOLERANCE)
    np.testing.assert_allclose(double.score, [expected], rtol=0, atol=FLOAT64_SCORE_TOLERANCE)
    np.testing.assert_allclose(single.score, double.score, rtol=0, atol=FLOAT32_SCORE_TOLERANCE)


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Small models."""
    return make_pair(TINY[request.param], tmp_path_factory.mktemp("tiny") / "folder")


def test_tiny(tiny: Pair):
    assert_forward(tiny)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_jacobian(tiny: Pair, schedule: ScheduleName):
    for dtype, tolerance in (("float32", FLOAT32_TOLERANCE), ("float64", FLOAT64_TOLERANCE)):
        found = tiny.jacobian(dtype, schedule=schedule, block_size=None if dtype == "float32" else 7)
        assert error(found, tiny.torch_jacobian) <= tolerance


def test_score(tiny: Pair):
    assert_scores(tiny)


def test_the_null_direction_is_found_in_the_parameters(tiny: Pair):
    assert tiny.encoder.null_direction_count == 1
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tiny.encoder.params)
        nulls = embed_with_nulls(tiny.encoder.function, params, jnp.asarray(tiny.clip, jnp.float64))[1]
    jacobian = tiny.torch_jacobian.reshape(len(nulls), -1)
    assert nulls.shape == (tiny.encoder.spec.embedding_size, 1)
    assert np.linalg.norm(jacobian.T @ np.asarray(nulls)) <= 1e-14 * np.linalg.norm(jacobian)


@pytest.mark.parametrize(("frames", "side"), [(2, 8), (6, 12)])
def test_other_clips(frames: int, side: int, tmp_path: Path):
    """Positions are counted on the clip's own grid, as in the authors' code; `transformers` counts on one that its
    configuration tells, so that its model is made of the same weights for that.
    """
    model = reference.random_vjepa2(**SHAPE)
    encoder = jj.load_encoder(families.save_folder(model, tmp_path / "folder"), image_size=side, frames=frames)
    assert encoder.spec.input_shape == (frames, side, side, 3)
    larger: dict[str, Any] = SHAPE | {"image_size": side, "frames": frames}
    other = reference.random_vjepa2(**larger)
    other.load_state_dict(model.state_dict())
    clips = np.random.default_rng(1).normal(0, 0.3, (2, *encoder.spec.input_shape)).astype(np.float32)
    assert error(np.asarray(encoder(clips)), reference.stages(other, clips)[0]) <= FLOAT32_TOLERANCE


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    heads=st.integers(1, 4),
    head_width=st.sampled_from([6, 8, 12, 14, 22]),
    depth=st.integers(1, 3),
    patch_size=st.integers(1, 5),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    tubelet=st.integers(1, 3),
    mlp_width=st.integers(1, 50),
    qkv_bias=st.booleans(),
    norm_eps=st.sampled_from([1e-6, 1e-12]),
)
def test_odd_configurations(
    tmp_path_factory: pytest.TempPathFactory,
    heads: int,
    head_width: int,
    depth: int,
    patch_size: int,
    grid: tuple[int, int],
    tubelet: int,
    mlp_width: int,
    qkv_bias: bool,
    norm_eps: float,
):
    width = heads * head_width
    model = reference.random_vjepa2(
        width,
        heads,
        depth,
        mlp_ratio=(mlp_width + 0.5) / width,
        patch_size=patch_size,
        image_size=grid[1] * patch_size,
        frames=grid[0] * tubelet,
        tubelet=tubelet,
        qkv_bias=qkv_bias,
        norm_eps=norm_eps,
    )
    encoder = jj.load_encoder(families.save_folder(model, tmp_path_factory.mktemp("odd") / "folder"))
    assert encoder.spec.vit.mlp_width == mlp_width
    clips = np.random.default_rng(0).normal(0, 0.3, (2, *encoder.spec.input_shape)).astype(np.float32)
    found = np.asarray(encoder(clips))
    jax.clear_caches()
    expected = reference.stages(model, clips)[0]
    assert np.linalg.norm(found - expected) <= FLOAT32_TOLERANCE * np.linalg.norm(expected)


@pytest.mark.parametrize("name", WIDE)
def test_full_width(name: str, tmp_path: Path):
    """Published widths, numbers of heads and hidden widths, with two blocks; every row of the Jacobian, and scores."""
    vit = ENCODERS[name].vit
    shape: dict[str, Any] = {
        "width": vit.width,
        "heads": vit.heads,
        "depth": 2,
        "mlp_ratio": vit.mlp_width / vit.width,
        "patch_size": vit.patch_size,
        "image_size": 2 * vit.patch_size,
        "frames": 4,
    }
    pair = make_pair(shape, tmp_path / "folder")
    assert pair.encoder.spec.vit.mlp_width == vit.mlp_width
    assert_forward(pair)
    for dtype, tolerance in (("float32", FLOAT32_TOLERANCE), ("float64", FLOAT64_TOLERANCE)):
        found = pair.jacobian(dtype)
        assert error(found, pair.torch_jacobian) <= tolerance
    assert_scores(pair)
    jax.clear_caches()
