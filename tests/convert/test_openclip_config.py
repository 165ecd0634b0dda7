"""OpenCLIP's own configuration decides how its weights are used; a name that contradicts it is refused."""

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
import torch_state_dicts as state_dicts
from safetensors.torch import save_file

import jepa_jax as jj
from convert_weights.convert import read_source
from jepa_jax.encoders import ENCODERS, PreprocessSpec
from jepa_jax.encoders.clip import CLIP_MEAN, CLIP_STD

SHAPE: dict[str, Any] = {"width": 24, "heads": 3, "depth": 2, "mlp_width": 48, "patch_size": 14, "image_size": 28}
HALF = (0.5, 0.5, 0.5)


def configuration(**changes: Any) -> dict[str, Any]:
    """What OpenCLIP writes for the small tower, with changes by the names of their sections."""
    vision = {"image_size": 28, "layers": 2, "width": 24, "head_width": 8, "patch_size": 14, "mlp_ratio": 2.0}
    model = {"embed_dim": 16, "quick_gelu": True, "text_cfg": {"context_length": 77}}
    preprocess = {"mean": list(HALF), "std": list(HALF), "interpolation": "bicubic", "resize_mode": "shortest"}
    return {
        "model_cfg": model | changes.get("model_cfg", {}) | {"vision_cfg": vision | changes.get("vision_cfg", {})},
        "preprocess_cfg": preprocess | changes.get("preprocess_cfg", {}),
    }


def small(activation: str = "quick_gelu") -> families.Embedder:
    return families.random_clip(**SHAPE, projection=16, activation=activation)


def write(model: families.Embedder, folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(configuration(**changes)))
    torch.save(state_dicts.openclip_state_dict(model), folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_folder_describes_itself(activation: str, tmp_path: Path):
    model = small(activation)
    folder = write(model, tmp_path / "own", model_cfg={"quick_gelu": activation == "quick_gelu"})
    encoder = jj.load_encoder(folder)
    assert encoder.spec.name == "own"
    assert encoder.spec.preprocess == PreprocessSpec(28, 28, "bicubic", HALF, HALF)
    images = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    expected = reference.torch_embedding(model, images, torch.float64)  # pyright: ignore[reportArgumentType]
    # Two blocks in float32; the other activation is off by 1e-2.
    np.testing.assert_allclose(np.asarray(encoder(images)), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_file_with_its_configuration_beside_it(tmp_path: Path, suffix: str):
    model = small()
    folder = write(model, tmp_path / "own", preprocess_cfg={"resize_mode": "squash", "mean": None})
    file = folder / f"open_clip_pytorch_model.{suffix}"
    if suffix == "safetensors":
        save_file(state_dicts.openclip_state_dict(model), file)
    source = read_source(file)
    assert source.spec.preprocess == PreprocessSpec(28, 28, "bicubic", CLIP_MEAN, HALF, squeeze=True)
    assert source.encoder.digest == jj.load_encoder(folder).digest
    assert source.recipe == "open_clip_config.json"


def test_safetensors_come_first(tmp_path: Path):
    model = small()
    folder = write(model, tmp_path / "own", preprocess_cfg={"std": None})
    tensors = state_dicts.openclip_state_dict(model)
    save_file(tensors | {"visual.proj": 2 * tensors["visual.proj"]}, folder / "open_clip_model.safetensors")
    encoder = jj.load_encoder(folder)
    np.testing.assert_array_equal(np.asarray(encoder.params["projection"]["kernel"]), 2 * tensors["visual.proj"])
    assert encoder.spec.preprocess.std == CLIP_STD


def test_contradiction_is_refused_with_both_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = write(small(), tmp_path / "own") / "open_clip_pytorch_model.bin"
    own = read_source(file).spec
    known = dataclasses.replace(ENCODERS["openclip-b16-laion2b"], vit=own.vit, preprocess=own.preprocess)
    monkeypatch.setitem(ENCODERS, known.name, known)
    assert read_source(file, known.name).spec == known
    assert read_source(file).spec == known  # found by what it is
    other = dataclasses.replace(
        known,
        vit=dataclasses.replace(known.vit, activation="gelu"),
        preprocess=PreprocessSpec(28, 28, mean=CLIP_MEAN, std=HALF),
    )
    monkeypatch.setitem(ENCODERS, known.name, other)
    both = r"activation gelu there and quick_gelu here, mean \(0\.48.*\) there and \(0\.5, 0\.5, 0\.5\) here"
    with pytest.raises(jj.ArgumentError, match=both):
        read_source(file, known.name)
    with pytest.raises(jj.ArgumentError, match=r"'dinov2-small' is of the family 'dinov2', not what .*open_clip_"):
        read_source(file.parent, "dinov2-small")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"vision_cfg": {"pool_type": "avg"}}, r"model_cfg\.vision_cfg\.pool_type is 'avg'; only 'tok'"),
        ({"vision_cfg": {"timm_model_name": "vit_base"}}, "one of timm"),
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, "layers is .*, expected a whole number"),
        ({"vision_cfg": {"layers": 10**6}}, r"layers is 1000000, but .* holds \d+ tensors in all"),
        ({"vision_cfg": {"attentional_pool": True}}, "attentional_pool is True; only False"),
        ({"vision_cfg": {"no_ln_pre": True}}, "no_ln_pre is True"),
        ({"vision_cfg": {"ls_init_value": 1e-4}}, "ls_init_value is 0.0001, a field that is not known"),
        ({"vision_cfg": {"head_width": 48}}, "head_width is 48, expected no more than the width"),
        ({"vision_cfg": {"mlp_ratio": float("nan")}}, "mlp_ratio is nan, expected a number"),
        ({"vision_cfg": {"norm_kwargs": {"eps": -1}}}, r"norm_kwargs\.eps is -1, expected a number from"),
        ({"model_cfg": {"quick_gelu": "yes"}}, "quick_gelu is 'yes', expected true or false"),
        ({"model_cfg": {"multimodal_cfg": {"width": 3}}}, "multimodal_cfg is .*, a field that is not known"),
        ({"preprocess_cfg": {"resize_mode": "longest"}}, "resize_mode is 'longest', expected one of shortest"),
        ({"preprocess_cfg": {"mode": "L"}}, "mode is 'L'; only 'RGB'"),
        ({"preprocess_cfg": {"std": [0.5, 0.5, -1]}}, "must hold numbers from"),
    ],
    ids=str,
)
def test_what_is_not_done(changes: dict[str, Any], match: str, tmp_path: Path):
    with pytest.raises(jj.CheckpointError, match=match):
        jj.load_encoder(write(small(), tmp_path / "own", **changes))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: name.replace("visual.", "visual._orig_mod."),
        lambda name: name.replace("resblocks.0.", "resblocks.0._orig_mod."),
    ],
    ids=["compiled", "compiled and parallel", "parallel and compiled", "a compiled tower", "a compiled block"],
)
def test_prefixes_of_pytorch(wrap: Callable[[str], str], tmp_path: Path):
    folder = write(small(), tmp_path / "own")
    expected = jj.load_encoder(folder).digest
    file = folder / "open_clip_pytorch_model.bin"
    torch.save({wrap(name): tensor for name, tensor in torch.load(file).items()}, file)
    assert jj.load_encoder(folder).digest == expected
