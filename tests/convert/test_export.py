"""Back to Hugging Face: the same tensors bit for bit, and a configuration from which transformers builds the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_families as families
import torch_reference as reference
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    IJepaConfig,
    IJepaModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

import jepa_jax as jj
from convert_weights.config import Config
from convert_weights.convert import HUGGING_FACE, convert, read_source
from convert_weights.export import export, to_huggingface_config
from convert_weights.processors import folder_recipe, to_preprocessor_config
from convert_weights.tables import Layout, to_ours, to_theirs
from jepa_jax.encoders import ENCODERS, EncoderSpec, PreprocessSpec

SHAPE: dict[str, Any] = {"width": 24, "heads": 3, "depth": 2, "mlp_width": 40, "patch_size": 14, "image_size": 28}
EDGED: dict[str, Any] = SHAPE | {"image_size": 30}
MASK_TOKEN = "embeddings.mask_token"

MODELS: dict[str, tuple[Any, Callable[[], torch.nn.Module]]] = {
    "dinov2": (Dinov2Model, lambda: reference.random_dinov2(24, 3, 2, image_size=28)),
    "dinov2-swiglu-registers": (
        Dinov2WithRegistersModel,
        lambda: reference.random_dinov2(24, 3, 2, image_size=28, registers=True, swiglu=True),
    ),
    "dinov3": (DINOv3ViTModel, lambda: families.random_dinov3(**SHAPE)),
    "dinov3-gated-no-registers": (DINOv3ViTModel, lambda: families.random_dinov3(**SHAPE, gated=True, registers=0)),
    "dinov3-all-biases": (DINOv3ViTModel, lambda: families.random_dinov3(**SHAPE, biases=(True, True))),
    "ijepa": (IJepaModel, lambda: families.random_ijepa(**SHAPE)),
    "clip": (CLIPVisionModelWithProjection, lambda: families.random_clip(**SHAPE, projection=16)),
    "siglip": (SiglipVisionModel, lambda: families.random_siglip(**EDGED)),
}


@pytest.mark.parametrize("name", MODELS)
def test_round_trip_is_bitwise(name: str, tmp_path: Path):
    kind, build = MODELS[name]
    folder = families.save_folder(build(), tmp_path / "original")
    export(convert(read_source(folder), tmp_path / "converted"), tmp_path / "back")
    original, back = load_file(folder / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert original.keys() == back.keys()
    if MASK_TOKEN in original:
        assert back.pop(MASK_TOKEN).eq(0).all()
    for tensor, expected in ((back[key], original[key]) for key in back):
        assert tensor.dtype == expected.dtype
        assert tensor.numpy().tobytes() == expected.numpy().tobytes()
    _, loading = kind.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(loading.values()), loading
    assert jj.load_encoder(tmp_path / "back").spec.vit == jj.load_encoder(folder).spec.vit


def test_bfloat16_kernels_are_widened_by_transformers(tmp_path: Path):
    folder = families.save_folder(families.random_clip(**SHAPE, projection=16), tmp_path / "original")
    encoder = read_source(folder, kernel_dtype="bfloat16").encoder
    export(encoder, tmp_path / "back")
    stored = load_file(tmp_path / "back" / "model.safetensors")
    assert stored["visual_projection.weight"].dtype == torch.bfloat16
    model = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "back")
    assert model.dtype == torch.float32
    assert model.visual_projection.weight.equal(stored["visual_projection.weight"].float())


HUGGING_FACE_FAMILIES = {ENCODERS[name].family for name in ENCODERS} - {"vit", "timm"}  # our own, and timm's layout


def fields_that_matter(config: Any) -> dict[str, Any]:
    """A configuration without what only training or bookkeeping uses."""
    ignored = {"transformers_version", "architectures", "dtype", "_name_or_path"}
    return {name: value for name, value in config.to_dict().items() if name not in ignored}


SWIGLU: dict[str, Any] = {"use_swiglu_ffn": True}
ORIGINALS = {
    "dinov2-small": Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14),
    "dinov2-giant": Dinov2Config(
        hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, image_size=518, patch_size=14, **SWIGLU
    ),
    "dinov2-with-registers-base": Dinov2WithRegistersConfig(image_size=518, patch_size=14),
    "dinov3-small": DINOv3ViTConfig(num_register_tokens=4),
    "dinov3-7b": DINOv3ViTConfig(
        hidden_size=4096,
        num_hidden_layers=40,
        num_attention_heads=32,
        intermediate_size=8192,
        num_register_tokens=4,
        use_gated_mlp=True,
        hidden_act="silu",
        query_bias=False,
        value_bias=False,
    ),
    "ijepa-vith16-448-1k": IJepaConfig(
        hidden_size=1280,
        num_hidden_layers=32,
        num_attention_heads=16,
        intermediate_size=5120,
        layer_norm_eps=1e-6,
        image_size=448,
    ),
    "clip-b32": CLIPVisionConfig(),
    "openclip-bigg14-laion2b": CLIPVisionConfig(
        hidden_size=1664,
        num_hidden_layers=48,
        num_attention_heads=16,
        intermediate_size=8192,
        patch_size=14,
        hidden_act="gelu",
        projection_dim=1280,
    ),
    "siglip2-base-patch16-224": SiglipVisionConfig(),
    "siglip-so400m-patch14-384": SiglipVisionConfig(
        hidden_size=1152,
        num_hidden_layers=27,
        num_attention_heads=16,
        intermediate_size=4304,
        image_size=384,
        patch_size=14,
    ),
}
"""The configurations as they are published, by name."""


@pytest.mark.parametrize("name", ORIGINALS)
def test_config_is_the_original(name: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(to_huggingface_config(ENCODERS[name])))
    found = AutoConfig.from_pretrained(tmp_path)
    assert type(found) is type(ORIGINALS[name])
    assert fields_that_matter(found) == fields_that_matter(ORIGINALS[name])


@pytest.mark.parametrize("name", [name for name, spec in ENCODERS.items() if spec.family in HUGGING_FACE_FAMILIES])
def test_every_config_reads_back(name: str, tmp_path: Path):
    spec = ENCODERS[name]
    (tmp_path / "config.json").write_text(json.dumps(to_huggingface_config(spec)))
    config = Config.read(tmp_path / "config.json")
    found = HUGGING_FACE[config.text("model_type")].vit_spec(config)
    assert dataclasses.replace(found, position_resize=spec.vit.position_resize) == spec.vit


@pytest.mark.parametrize(
    "recipe",
    [
        PreprocessSpec(),
        PreprocessSpec(224, 224, "bicubic", mean=(0.1, 0.2, 0.3)),
        PreprocessSpec(448, 448, "bilinear", squeeze=True),
    ],
    ids=["dinov2", "clip", "squeezed"],
)
def test_recipe_reads_back(recipe: PreprocessSpec, tmp_path: Path):
    content = to_preprocessor_config(recipe, "BitImageProcessor")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    assert folder_recipe(tmp_path, Config(tmp_path, {}), PreprocessSpec(1, 1)).preprocess == recipe


@pytest.mark.parametrize(
    ("layout", "shape", "count"),
    [
        ("values", (1, 1, 6), 1),
        ("values", (4,), 3),
        ("linear", (4, 6), 1),
        ("linear", (4, 6), 3),
        ("patches", (5, 3, 2, 2), 1),
    ],
)
def test_layouts_are_inverted(layout: Layout, shape: tuple[int, ...], count: int):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for _ in range(count)]
    back = to_theirs(to_ours(arrays, layout), layout, shape, count)
    np.testing.assert_array_equal(back, arrays)


def test_what_cannot_be_exported(tmp_path: Path):
    folder = families.save_folder(families.random_ijepa(**SHAPE), tmp_path / "original")
    encoder = jj.load_encoder(folder)
    with pytest.raises(jj.ArgumentError, match="not empty"):
        export(encoder, folder)
    own = jj.Encoder(EncoderSpec("own", "vit", encoder.spec.vit), encoder.params)
    with pytest.raises(jj.ArgumentError, match="family 'vit', which has no Hugging Face format"):
        export(own, tmp_path / "back")
    assert not (tmp_path / "back").exists()
