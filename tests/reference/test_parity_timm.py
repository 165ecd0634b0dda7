"""timm's layout: encoders read from its folders equal its model; tolerances are argued in `test_parity_families`."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_reference as reference
import torch_timm
from safetensors.torch import load_file, save_file

import jepa_jax as jj
from convert_weights import timm_config
from convert_weights.config import Config
from convert_weights.convert import read_source
from convert_weights.tables import export_tensors
from jepa_jax.encoders import ENCODERS
from jepa_jax.encoders.parameters import build_module
from jepa_jax.jacobian.jacobian import embed_with_nulls

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "CLIP's": {"pre_norm": True, "eps": 1e-5, "act_layer": "quick_gelu"},
    "registers, LayerScale": {"reg_tokens": 2, "no_embed_class": True, "init_values": 1e-5},
    "giant": {"gated": True, "mlp_ratio": 2.66667 * 2, "init_values": 1e-5},
    "mean, norm behind": {"global_pool": "avg"},
    "mean, norm before, no class token": {
        "global_pool": "avg",
        "fc_norm": False,
        "class_token": False,
        "qkv_bias": False,
    },
    "class token, fc_norm": {"fc_norm": True, "act_layer": "gelu_tanh"},
}
NULLS = dict.fromkeys(KINDS, 2) | {"mean, norm before, no class token": 1}


def save(folder: Path, model: Any, **changes: Any) -> Path:
    args = {name: value for name, value in model.args.items() if name not in ("eps", "gated") and value is not None}
    name = "vit_base_patch16_224"
    if model.args["gated"]:
        name = "vit_giant_patch14_dinov2"
    elif model.args["pre_norm"]:
        name = "vit_base_patch16_clip_224"
    config = {"architecture": name, "num_classes": 0, "global_pool": args["global_pool"], "model_args": args}
    recipe = {"input_size": [3, 28, 28], "crop_pct": 0.9, "interpolation": "bicubic", "license": "mit"}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": recipe} | changes))
    save_file(model.float().state_dict() | {"head.weight": torch.ones(5, 24)}, folder / "model.safetensors")
    return folder


def relative_error(found: Any, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_parity(kind: str, tmp_path: Path):
    model = torch_timm.random_model(**KINDS[kind])
    source = read_source(save(tmp_path / "folder", model))
    assert source.left_out_here == {"head.weight": "the classifier"}
    encoder = source.encoder
    assert encoder.spec.licence == "mit"
    assert encoder.null_direction_count == NULLS[kind]
    back = export_tensors(encoder.params, source.rows)
    for name, tensor in load_file(tmp_path / "folder" / "model.safetensors").items():
        assert name == "head.weight" or back[name].tobytes() == tensor.numpy().tobytes()
    image = np.random.default_rng(0).normal(0, 0.3, (28, 28, 3)).astype(np.float32)
    embedding = reference.torch_embedding(model, image[None], torch.float64)
    blocks = reference.torch_block_outputs(model, image[None], torch.float64)
    jacobian = reference.torch_jacobian(model, image, torch.float64)
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.float64, 1e-11)):
        with jax.enable_x64(dtype == jnp.float64), jax.default_matmul_precision("highest"):
            params = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), encoder.params)
            batch = jnp.asarray(image[None], dtype)
            stages = jax.jit(build_module(encoder.spec.vit, params).intermediates)(batch)
            assert relative_error(stages["embedding"], embedding) <= tolerance
            for i, tokens in enumerate([stages["tokens"], *(stages[f"block_{i}"] for i in range(2))]):
                assert relative_error(tokens, blocks[i]) <= tolerance
            assert relative_error(jj.jacobian(encoder, batch)[0], jacobian) <= tolerance
            nulls = embed_with_nulls(encoder.function, params, batch[0])[1]
    left = np.linalg.norm(jacobian.reshape(24, -1).T @ np.asarray(nulls), axis=0) / np.linalg.norm(jacobian)
    assert np.all(left <= encoder.spec.vit.norm_eps)


@pytest.mark.parametrize(
    ("name", "architecture", "recipe"),
    [
        *(
            (f"tipsv2-{size}", f"vit_{size}_patch14_reg1_tipsv2", {"input_size": [3, 448, 448], "crop_pct": 1.0})
            for size in ("base", "large", "so400m", "giant")
        ),
        ("visreg-base", "vit_base_patch16_224", {"input_size": [3, 224, 224]}),
        ("visreg-large", "vit_large_patch14_224", {"input_size": [3, 224, 224]}),
    ],
)
def test_known_names_are_what_timm_builds_of_its_own(
    name: str, architecture: str, recipe: dict[str, Any], tmp_path: Path
):
    known = ENCODERS[name]
    described = recipe | {"fixed_input_size": True, "mean": known.preprocess.mean, "std": known.preprocess.std}
    config = {"architecture": architecture, "global_pool": "token", "pretrained_cfg": described}
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = Config.read(tmp_path / "config.json")
    vit = timm_config.vit_spec(read)
    assert vit == known.vit
    assert timm_config.recipe(read, vit.native_image_size) == known.preprocess


def test_a_file_is_read_by_its_known_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = torch_timm.random_model()
    folder = jj.load_encoder(save(tmp_path / "folder", model))
    monkeypatch.setitem(ENCODERS, "visreg-base", dataclasses.replace(ENCODERS["visreg-base"], vit=folder.spec.vit))
    torch.save(model.float().state_dict() | {"proj.0.weight": torch.ones(7, 24)}, tmp_path / "visreg.pth")
    source = read_source(tmp_path / "visreg.pth", "visreg-base")
    assert source.left_out_here == {"proj.0.weight": "the projection that VISReg was trained with"}
    assert source.encoder.spec.licence == "CC-BY-NC-4.0"
    image = np.random.default_rng(0).normal(0, 0.3, (1, 28, 28, 3)).astype(np.float32)
    np.testing.assert_array_equal(source.encoder(image), folder(image))
    with pytest.raises(jj.ArgumentError, match=r"'visreg-large' is not what .* describes, which is 'visreg-base'"):
        read_source(tmp_path / "folder", "visreg-large")


@pytest.mark.parametrize("kind", ["mean, norm behind", "registers, LayerScale"])
def test_score(kind: str, tmp_path: Path):
    model = torch_timm.random_model(**KINDS[kind])
    encoder = jj.load_encoder(save(tmp_path / "folder", model))
    image = np.random.default_rng(0).normal(0, 0.3, (28, 28, 3)).astype(np.float32)
    values = np.linalg.svd(reference.torch_jacobian(model, image, torch.float64).reshape(24, -1), compute_uv=False)
    double, single = jj.score(encoder, image[None], precision="float64"), jj.score(encoder, image[None])
    np.testing.assert_allclose(double.score, [np.log(values[: 24 - NULLS[kind]]).sum()], rtol=0, atol=1e-8)
    np.testing.assert_allclose(single.score, double.score, rtol=0, atol=0.01)


def test_another_size(tmp_path: Path):
    model = torch_timm.random_model(**KINDS["registers, LayerScale"])
    encoder = jj.load_encoder(save(tmp_path / "folder", model))
    batch = np.random.default_rng(1).normal(0, 0.3, (1, 42, 56, 3)).astype(np.float32)
    assert relative_error(encoder(batch), reference.torch_embedding(model, batch, torch.float64)) <= 1e-5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architecture": "vit_base_patch16_siglip_224"}, "SigLIP's attention pooling as google's own"),
        ({"architecture": "resnet50"}, "timm's architecture 'resnet50' is not read"),
        ({"architecture": 3}, "architecture is 3, expected a string"),
        ({"global_pool": "avg"}, "global_pool is 'avg'; only 'token'"),
        ({"model_args": {"qk_norm": True}}, "qk_norm is True; only False"),
        ({"model_args": {"block_fn": "x"}}, "block_fn is 'x', a field that is not known here"),
        ({"model_args": {"reg_tokens": 4}}, "registers have positions"),
        ({"model_args": {"act_layer": "relu"}}, "act_layer is 'relu', expected one of gelu"),
        ({"model_args": {"depth": -1}}, "depth is -1, expected a whole number"),
        ({"model_args": {}}, "image_size=28 is not a multiple of the patch size"),
        ({"pretrained_cfg": {"crop_pct": 2}}, "crop_pct is 2, expected a number"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode is 'border'"),
        ({"pretrained_cfg": {"input_size": [3, 28, 42]}}, "input_size is .*sides of a square"),
        ({"pretrained_cfg": {"interpolation": "lanczos"}}, "interpolation is 'lanczos'"),
    ],
    ids=str,
)
def test_descriptions_that_are_not_read(changes: dict[str, Any], expected: str, tmp_path: Path):
    folder = save(tmp_path / "folder", torch_timm.random_model(), **changes)
    with pytest.raises(jj.CheckpointError, match=expected) as error:
        read_source(folder)
    assert "\n" not in str(error.value)


def test_the_recipe_is_the_configurations(tmp_path: Path):
    recipe = {"input_size": [3, 28, 28], "crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.5, 0.4, 0.3]}
    folder = save(tmp_path / "folder", torch_timm.random_model(), pretrained_cfg=recipe)
    found = jj.load_encoder(folder).spec.preprocess
    assert (found.resize_shortest, found.crop, found.interpolation, found.squeeze) == (31, 28, "bilinear", False)
    assert (found.mean, found.std) == ((0.5, 0.4, 0.3), (0.229, 0.224, 0.225))


def test_a_pickle_is_read_too(tmp_path: Path):
    folder = save(tmp_path / "folder", torch_timm.random_model())
    expected = jj.load_encoder(folder).digest
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert jj.load_encoder(folder).digest == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_timm(kind: str):
    timm = pytest.importorskip("timm")
    model = torch_timm.random_model(**KINDS[kind]).double()
    args = {name: value for name, value in model.args.items() if name not in ("eps", "gated")}
    if model.args["gated"]:
        args |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    norm: Any = functools.partial(torch.nn.LayerNorm, eps=model.args["eps"])
    theirs = timm.models.VisionTransformer(num_classes=0, norm_layer=norm, **args).double().eval()
    theirs.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 28, 28, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(theirs(images), model(images).pooler_output, rtol=1e-12, atol=1e-12)
