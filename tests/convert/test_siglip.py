"""SigLIP's folders: both towers or one, old names and new; what is no checkpoint of one size is told from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import torch_families as families
import torch_reference as reference
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import jepa_jax as jj
from convert_weights.convert import read_source
from jepa_jax.encoders import ENCODERS, EncoderSpec, PreprocessSpec
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.encoders.siglip import siglip_vit

SHAPE: dict[str, Any] = {"width": 24, "heads": 3, "depth": 2, "mlp_width": 40, "patch_size": 14, "image_size": 30}


@pytest.fixture
def model() -> families.Embedder:
    """A small image tower."""
    return families.random_siglip(**SHAPE)


@pytest.fixture
def folder(model: families.Embedder, tmp_path: Path) -> Path:
    """Its folder."""
    return families.save_folder(model, tmp_path / "folder")


def rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if file.suffix == ".json":
        file.write_text(json.dumps(change(json.loads(file.read_text()))))
    else:
        save_file(change(load_file(file)), file)


def test_the_image_tower_of_two(model: families.Embedder, folder: Path, tmp_path: Path):
    expected = jj.load_encoder(folder)
    both = families.save_folder(families.whole_siglip(model), tmp_path / "both")
    source = read_source(both)
    assert source.encoder.digest == expected.digest
    assert set(source.left_out_here.values()) == {
        "the text tower",
        "the temperature between both towers",
        "the bias between both towers",
    }


def test_names_of_older_releases(folder: Path):
    expected = jj.load_encoder(folder).digest

    def older(tensors: dict[str, Any]) -> dict[str, Any]:
        ids = {"embeddings.position_ids": torch.arange(4)[None]}
        return {f"vision_model.{name}": tensor for name, tensor in (tensors | ids).items()}

    rewrite(folder / "model.safetensors", older)
    assert jj.load_encoder(folder).digest == expected


def test_known_names():
    named = {name: spec for name, spec in ENCODERS.items() if spec.family == "siglip"}
    assert len(named) == 25
    so400m = named["siglip-so400m-patch14-384"]
    assert (so400m.vit.native_grid, so400m.embedding_size, so400m.licence) == (27, 1152, "Apache-2.0")
    assert named["siglip2-giant-opt-patch16-256"].hub_id == "google/siglip2-giant-opt-patch16-256"
    assert all(name.endswith(str(spec.image_size)) or spec.hub_id for name, spec in named.items())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": "siglip2"}, "NaFlex, which takes pictures in their own shapes and is not supported"),
        ({"model_type": "siglip2_vision_model"}, "NaFlex"),
        ({"vision_use_head": False}, "vision_use_head is False; only True"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', expected one of gelu_pytorch_tanh"),
        ({"num_attention_heads": 1}, "two heads or more"),
        ({"num_attention_heads": 5}, "width=24 is not a multiple of heads=5"),
        ({"image_size": 13}, "native_image_size=13"),
        ({"image_size": [30, 30]}, "image_size is"),
        ({"image_size": 56}, "position_embedding.weight has shape"),
        ({"num_channels": 1}, "num_channels is 1; only 3"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"intermediate_size": 41}, "has shape"),
    ],
    ids=str,
)
def test_descriptions_that_are_not_read(change: dict[str, Any], expected: str, folder: Path):
    rewrite(folder / "config.json", lambda config: config | change)
    with pytest.raises(jj.CheckpointError, match=expected) as error:
        read_source(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["head.probe", "head.attention.in_proj_weight", "head.mlp.fc2.bias"])
def test_the_head_is_whole_or_refused(name: str, folder: Path):
    rewrite(folder / "model.safetensors", lambda tensors: {n: t for n, t in tensors.items() if n != name})
    with pytest.raises(jj.CheckpointError, match=rf"1 missing \({name}\)"):
        read_source(folder)


def test_a_file_is_not_its_own_description(folder: Path):
    with pytest.raises(jj.ArgumentError, match="read from the folder of its repository, google/siglip2-base-patch16"):
        read_source(folder / "model.safetensors", "siglip2-base-patch16-224")


def test_one_patch_is_none_to_pool():
    vit = siglip_vit(28, 14, width=12, depth=1, heads=2, mlp_width=16)
    encoder = jj.Encoder(EncoderSpec("small", "siglip", vit, PreprocessSpec(28, 28)), initialize_params(vit, 0))
    with pytest.raises(jj.ArgumentError, match="one patch of 14"):
        jj.score(encoder, np.zeros((1, 20, 27, 3), np.float32))


@settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    heads=st.integers(2, 4),
    head_width=st.integers(3, 7),
    depth=st.integers(1, 2),
    mlp_width=st.integers(1, 50),
    patch_size=st.integers(3, 9),
    grid=st.integers(1, 3),
    beyond=st.integers(0, 2),
    rows=st.integers(1, 3),
)
def test_odd_architectures(heads, head_width, depth, mlp_width, patch_size, grid, beyond, rows, tmp_path_factory):
    model: Any = families.random_siglip(
        heads * head_width,
        heads,
        depth,
        mlp_width=mlp_width,
        patch_size=patch_size,
        image_size=grid * patch_size + beyond,
    )
    encoder = jj.load_encoder(families.save_folder(model, tmp_path_factory.mktemp("odd") / "folder"))
    sides = (rows * patch_size + beyond, 2 * patch_size)
    image = np.random.default_rng(0).normal(0, 0.3, (*sides, 3)).astype(np.float32)
    expected = reference.torch_jacobian(model, image, torch.float64)
    size = np.linalg.norm(expected)
    with jax.enable_x64(True):
        found = [
            jj.jacobian(encoder, image[None].astype(np.float64), schedule=name)[0] for name in ("looped", "batched")
        ]
    # Two channels or three would leave a LayerNorm no direction but its own, and the Jacobian rounding alone.
    for jacobian in found:
        # Rounding of float64 through two blocks.
        assert np.linalg.norm(np.asarray(jacobian) - expected) <= 1e-10 * size
