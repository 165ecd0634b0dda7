"""I-JEPA, DINOv3, CLIP and SigLIP in JAX equal theirs in PyTorch: embeddings, blocks, Jacobians, scores.

What rounding explains: one rounding is 6e-8 in float32 (1e-16 in float64), and a sum of up to 8,192 products,
as in bigG's MLP, adds up at random to 90 of them: 6e-6 (1e-14). Float64 has three digits more in hand.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_families as families
import torch_reference as reference

import jepa_jax as jj
from jepa_jax.encoders import ENCODERS
from jepa_jax.encoders.parameters import build_module
from jepa_jax.jacobian.jacobian import embed_with_nulls

FLOAT32_TOLERANCE = 1e-5
FLOAT64_TOLERANCE = 1e-11
FLOAT64_SCORE_TOLERANCE = 1e-8
# Noise e |J| moves log sigma_k by up to e sigma_1 / sigma_k, their sum by the root of K times as much: here below
# sqrt(512) * 1e-6 * 400.
FLOAT32_SCORE_TOLERANCE = 0.01

TINY_IJEPA: dict[str, Any] = {"width": 24, "heads": 3, "depth": 2, "mlp_width": 40, "patch_size": 14, "image_size": 56}
TINY_CLIP: dict[str, Any] = {**TINY_IJEPA, "projection": 16}
TINY_DINOV3: dict[str, Any] = {**TINY_IJEPA, "width": 36}
# Patches of 14 in 61 pixels: five at the edges are left out.
TINY_SIGLIP: dict[str, Any] = {**TINY_IJEPA, "image_size": 61}
WIDE_CLIP: dict[str, Any] = {**TINY_IJEPA, "projection": 29}
TINY = {
    "ijepa": lambda: families.random_ijepa(**TINY_IJEPA),
    "ijepa-no-qkv-bias": lambda: families.random_ijepa(**TINY_IJEPA, qkv_bias=False),
    "dinov3": lambda: families.random_dinov3(**TINY_DINOV3),
    "dinov3-gated-no-biases": lambda: families.random_dinov3(**TINY_IJEPA, gated=True, biases=(False, False)),
    "clip-quick-gelu": lambda: families.random_clip(**TINY_CLIP),
    "clip-gelu-normalized": lambda: families.random_clip(**TINY_CLIP, activation="gelu", l2_normalize=True),
    "clip-wide-projection": lambda: families.random_clip(**WIDE_CLIP),
    "clip-wide-normalized": lambda: families.random_clip(**WIDE_CLIP, l2_normalize=True),
    "siglip": lambda: families.random_siglip(**TINY_SIGLIP),
    "siglip-normalized": lambda: families.random_siglip(**TINY_SIGLIP, l2_normalize=True),
}
NULLS = {
    "ijepa": 1,
    "ijepa-no-qkv-bias": 1,
    "dinov3": 2,
    "dinov3-gated-no-biases": 2,
    "clip-quick-gelu": 0,
    "clip-gelu-normalized": 1,
    "clip-wide-projection": 2 + 29 - 24,
    "clip-wide-normalized": 2 + 29 - 24,
    "siglip": 0,
    "siglip-normalized": 1,
}
SCORED = ["ijepa", "dinov3", "dinov3-gated-no-biases", "clip-quick-gelu", "clip-gelu-normalized", "siglip"]
SCORED += ["siglip-normalized"]
WIDE = [
    "ijepa-vith14-1k",
    "dinov3-small",
    "dinov3-small-plus",
    "dinov3-huge-plus",
    "ijepa-vitg16-22k",
    "clip-l14",
    "openclip-bigg14-laion2b",
    "siglip-so400m-patch14-384",
    "siglip2-giant-opt-patch16-256",
]
"""Every width; CLIP's B is scored, and H has that of I-JEPA."""


def at_full_width(name: str, depth: int = 2) -> families.Embedder:
    """A published architecture at its true width, with few blocks and positions for 4 x 4 patches."""
    vit = ENCODERS[name].vit
    shape: dict[str, Any] = {
        "width": vit.width,
        "heads": vit.heads,
        "depth": depth,
        "mlp_width": vit.mlp_width,
        "patch_size": vit.patch_size,
        "image_size": 4 * vit.patch_size,
    }
    if vit.pooling == "attention":
        return families.random_siglip(**shape)
    if vit.rotary_base is not None:
        biases = vit.qkv_bias, vit.key_bias
        return families.random_dinov3(**shape, gated=vit.activation == "swiglu", biases=biases)
    if vit.projection is None:
        return families.random_ijepa(**shape)
    return families.random_clip(**shape, projection=vit.projection, activation=vit.activation)


@dataclass(frozen=True, eq=False)
class Pair:
    """One model on both sides, and an image of 2 x 2 patches."""

    torch_model: Any  # an Embedder, where torch_reference asks for a DINOv2
    encoder: jj.Encoder
    image: np.ndarray

    @functools.cached_property
    def all_in_float64(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Every stage, and the Jacobian."""
        return self.compute(jnp.float64, slice(None))

    def compute(self, dtype: Any, rows: slice) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Every stage, and rows of the Jacobian [K, H, W, 3]."""
        spec = self.encoder.spec.vit

        @jax.jit
        def both(params: Any, batch: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
            stages = build_module(spec, params).intermediates(batch)
            return stages, jj.jacobian(lambda pixels: self.encoder.function(params, pixels)[:, rows], batch)[0]

        with jax.enable_x64(dtype == jnp.float64), jax.default_matmul_precision("highest"):
            params = jax.tree.map(lambda leaf: leaf.astype(dtype), self.encoder.params)
            stages, jacobian = both(params, jnp.asarray(self.image[None], dtype))
            return {name: np.asarray(stage) for name, stage in stages.items()}, np.asarray(jacobian)


def make_pair(model: families.Embedder, folder: Path, l2_normalize: bool | None = None) -> Pair:
    """A model, and the encoder that reads its Hugging Face folder."""
    encoder = jj.load_encoder(families.save_folder(model, folder), l2_normalize=l2_normalize)
    shutil.rmtree(folder)  # bigG takes 300 MB, and pytest keeps temporary folders
    side = 2 * encoder.spec.vit.patch_size
    image = np.random.default_rng(0).normal(0, 0.3, (side, side, 3)).astype(np.float32)
    return Pair(model.double(), encoder, image)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the error over the norm."""
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def assert_parity(pair: Pair, rows: slice) -> None:
    """Every stage, and the Jacobian, in both precisions."""
    batch = pair.image[None]
    embedding = reference.torch_embedding(pair.torch_model, batch, torch.float64)
    # transformers counts CLIP's LayerNorm before the blocks to neither side: the state before it is not ours.
    blocks = reference.torch_block_outputs(pair.torch_model, batch, torch.float64)[1:]
    jacobian = reference.torch_jacobian(pair.torch_model, pair.image, torch.float64, rows)
    for dtype, tolerance in ((jnp.float32, FLOAT32_TOLERANCE), (jnp.float64, FLOAT64_TOLERANCE)):
        whole = rows == slice(None) and dtype == jnp.float64
        stages, found = pair.all_in_float64 if whole else pair.compute(dtype, rows)
        assert relative_error(stages["embedding"], embedding) <= tolerance
        for i, block in enumerate(blocks):
            assert relative_error(stages[f"block_{i}"], block) <= tolerance, i
        assert relative_error(found, jacobian) <= tolerance


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Pair]:
    """Small models with every kind of layer between them."""
    name = request.param
    folder = tmp_path_factory.mktemp("tiny") / "folder"
    return name, make_pair(TINY[name](), folder, l2_normalize=name.endswith("normalized"))


def test_tiny(tiny: tuple[str, Pair]):
    assert_parity(tiny[1], slice(None))


@pytest.fixture(params=WIDE)
def wide(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Published widths and numbers of heads, with two blocks."""
    yield make_pair(at_full_width(request.param), tmp_path / "folder")
    jax.clear_caches()  # else six variants' programs stay in memory


def test_full_width(wide: Pair):
    # A Jacobian's rows are pulled back independently, so these stand for all.
    assert_parity(wide, slice(None, None, wide.encoder.spec.embedding_size // 16))


@pytest.mark.parametrize("name", SCORED)
def test_score(name: str, tmp_path: Path):
    assert_scores(name, make_pair(TINY[name](), tmp_path / "folder", l2_normalize=name.endswith("normalized")))


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("clip-b32", "clip-quick-gelu"),
        ("ijepa-vith14-1k", "ijepa"),
        ("dinov3-small-plus", "dinov3"),
        ("siglip-base-patch16-224", "siglip"),
    ],
)
def test_score_at_full_width(name: str, alike: str, tmp_path: Path):
    assert_scores(alike, make_pair(at_full_width(name), tmp_path / "folder"))
    jax.clear_caches()


def assert_scores(name: str, pair: Pair) -> None:
    """Whole Jacobians and scores, by the layer rules, against PyTorch's Jacobian and the paper's listing."""
    batch = pair.image[None]
    size = pair.encoder.spec.embedding_size
    jacobian = reference.torch_jacobian(pair.torch_model, pair.image, torch.float64).reshape(size, -1)
    for dtype, tolerance in (("float32", FLOAT32_TOLERANCE), ("float64", FLOAT64_TOLERANCE)):
        with jax.enable_x64(dtype == "float64"):
            found = np.asarray(jj.jacobian(pair.encoder, batch.astype(dtype)))
        assert relative_error(found.reshape(size, -1), jacobian) <= tolerance
    values = np.linalg.svd(jacobian, compute_uv=False)
    double = jj.score(pair.encoder, batch, precision="float64")
    single = jj.score(pair.encoder, batch)
    assert double.log_volume_rank == size - NULLS[name]
    expected = np.log(values[: double.log_volume_rank]).sum()
    listed = np.log(np.maximum(values, 1e-6)).sum()
    np.testing.assert_allclose(double.listing_score, [listed], rtol=0, atol=FLOAT64_SCORE_TOLERANCE)
    np.testing.assert_allclose(double.score, [expected], rtol=0, atol=FLOAT64_SCORE_TOLERANCE)
    np.testing.assert_allclose(single.score, double.score, rtol=0, atol=FLOAT32_SCORE_TOLERANCE)


def test_null_directions(tiny: tuple[str, Pair]):
    name, pair = tiny
    assert pair.encoder.null_direction_count == NULLS[name]
    jacobian = pair.all_in_float64[1].reshape(pair.encoder.spec.embedding_size, -1)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), pair.encoder.params)
        nulls = embed_with_nulls(pair.encoder.function, params, jnp.asarray(pair.image, jnp.float64))[1]
    assert nulls.shape == (pair.encoder.spec.embedding_size, NULLS[name])
    left = np.linalg.norm(jacobian.T @ np.asarray(nulls), axis=0) / np.linalg.norm(jacobian)
    # Exact, but for the second LayerNorm identity, which leaves epsilon over variance.
    assert np.all(left <= (pair.encoder.spec.vit.norm_eps if name.startswith(("clip-wide", "dinov3")) else 1e-14))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ijepa", (56, 56)),
        ("ijepa", (42, 84)),
        ("clip-quick-gelu", (56, 56)),
        ("clip-quick-gelu", (42, 84)),
        ("siglip", (61, 61)),
        ("siglip", (47, 90)),
    ],
    ids=str,
)
def test_other_sizes(name: str, size: tuple[int, int], tmp_path: Path):
    model: Any = TINY[name]()
    encoder = jj.load_encoder(families.save_folder(model, tmp_path))
    batch = np.random.default_rng(1).normal(0, 0.3, (2, *size, 3)).astype(np.float32)
    expected = reference.torch_embedding(model, batch, torch.float64)
    assert relative_error(np.asarray(encoder(batch)), expected) <= FLOAT32_TOLERANCE


def test_whole_metaclip_b16(tmp_path: Path):
    published = ENCODERS["metaclip-b16-400m"]
    vit = published.vit
    assert vit.projection is not None
    model = families.random_clip(
        vit.width,
        vit.heads,
        vit.depth,
        mlp_width=vit.mlp_width,
        patch_size=vit.patch_size,
        image_size=vit.native_image_size,
        projection=vit.projection,
    )
    pair = make_pair(model, tmp_path / "folder")
    assert dataclasses.replace(vit, position_resize="bicubic") == pair.encoder.spec.vit
    assert_parity(pair, slice(None, None, 64))
