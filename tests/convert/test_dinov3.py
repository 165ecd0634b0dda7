"""DINOv3's two formats: the same encoder from both, what is computed and not stored, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch_families as families
import torch_state_dicts as state_dicts
from conversion_files import edit_json, edit_tensors

import jepa_jax as jj
from convert_weights.convert import read_source
from convert_weights.export import export
from jepa_jax.encoders import EncoderSpec, find_spec
from jepa_jax.encoders.parameters import named_arrays

SHAPE: dict[str, Any] = {"width": 36, "heads": 3, "depth": 2, "mlp_width": 40, "patch_size": 16, "image_size": 224}
PERIODS = "rope_embed.periods"
MASK = "blocks.1.attn.qkv.bias_mask"
State = dict[str, torch.Tensor]


def small(gated: bool = False) -> EncoderSpec:
    """What the small models of these tests are, as if it were published."""
    published = find_spec(f"dinov3-small{'-plus' * gated}")
    narrow = {name: SHAPE[name] for name in ("width", "heads", "depth", "mlp_width")}
    return dataclasses.replace(published, name="dinov3-tiny", vit=dataclasses.replace(published.vit, **narrow))


def read_official(state: State, folder: Path, gated: bool = False) -> jj.Encoder:
    """The encoder in a state dict, under the name of the small one."""
    file = folder / "weights.pth"
    torch.save(state, file)
    with mock.patch("convert_weights.convert.find_spec", return_value=small(gated)):
        return read_source(file, "dinov3-tiny").encoder


@pytest.mark.parametrize("gated", [False, True])
def test_both_formats_are_one_encoder(gated: bool, tmp_path: Path):
    model = families.random_dinov3(**SHAPE, gated=gated)
    folder = families.save_folder(model, tmp_path / "folder")
    ours = jj.load_encoder(folder)
    assert ours.spec.vit == small(gated).vit
    official = read_official(state_dicts.dinov3_state_dict(model), tmp_path, gated)
    assert official.spec.vit == ours.spec.vit
    theirs = dict(named_arrays(official.params))
    for name, array in named_arrays(ours.params):
        np.testing.assert_array_equal(array, theirs[name])


def test_a_folder_has_its_processors_recipe(tmp_path: Path):
    folder = families.save_folder(families.random_dinov3(**SHAPE), tmp_path / "folder")
    assert jj.load_encoder(folder).spec.preprocess == find_spec("dinov3-small").preprocess
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 256, "width": 256}}'
    )
    recipe = jj.load_encoder(folder).spec.preprocess
    assert recipe == find_spec("dinov3-small").preprocess.at_image_size(256)


def test_periods_may_be_rounded(tmp_path: Path):
    state = state_dicts.dinov3_state_dict(families.random_dinov3(**SHAPE))
    rounded = state | {PERIODS: state[PERIODS].bfloat16().float()}
    exact, of_rounded = (read_official(each, tmp_path) for each in (state, rounded))
    assert of_rounded.spec.vit == dataclasses.replace(exact.spec.vit, rotary_periods="bfloat16")
    assert of_rounded.digest != exact.digest
    image = np.random.default_rng(0).standard_normal((1, 32, 48, 3)).astype(np.float32)
    assert not np.allclose(exact(image), of_rounded(image), rtol=1e-4)
    with pytest.raises(jj.ArgumentError, match="rotary_periods='bfloat16' cannot be written"):
        export(of_rounded, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_positions_are_not_resized(tmp_path: Path):
    folder = families.save_folder(families.random_dinov3(**SHAPE), tmp_path / "folder")
    with pytest.raises(jj.ArgumentError, match="has a rotary embedding"):
        jj.load_encoder(folder, position_resize="bicubic")


WRONG_STATES: dict[str, tuple[Callable[[State], Any], str]] = {
    "other periods": (lambda s: s.update({PERIODS: s[PERIODS] * 1.01}), "does not hold the 3 periods"),
    "fewer periods": (lambda s: s.update({PERIODS: s[PERIODS][:1]}), "does not hold the 3 periods"),
    "a mask that is not set": (lambda s: s.update({MASK: s[MASK] * torch.nan}), "a mask leaves keys a bias"),
    "a mask that lets keys through": (lambda s: s.update({MASK: torch.ones(108)}), "a mask leaves keys a bias"),
    "no mask": (lambda s: s.pop(MASK), f"1 missing ({MASK})"),
    "a norm of its own for class tokens": (lambda s: s.update({"cls_norm.weight": torch.ones(36)}), "1 unknown"),
    "position embeddings": (lambda s: s.update({"pos_embed": torch.ones(1, 197, 36)}), "1 unknown (pos_embed)"),
    "other registers": (lambda s: s.update({"storage_tokens": torch.ones(1, 3, 36)}), "expected (1, 4, 36)"),
}


@pytest.mark.parametrize("fault", WRONG_STATES)
def test_a_state_dict_that_is_none(fault: str, tmp_path: Path):
    damage, expected = WRONG_STATES[fault]
    state = state_dicts.dinov3_state_dict(families.random_dinov3(**SHAPE))
    damage(state)
    with pytest.raises(jj.CheckpointError) as error:
        read_official(state, tmp_path)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Hugging Face folder."""
    return families.save_folder(families.random_dinov3(**SHAPE), tmp_path_factory.mktemp("dinov3") / "folder")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("hidden_act", "relu", "hidden_act is 'relu'; only 'gelu'"),
        ("use_gated_mlp", True, "hidden_act is 'gelu'; only 'silu'"),
        ("value_bias", False, "value_bias is False; only True"),
        ("mlp_bias", False, "mlp_bias is False; only True"),
        ("proj_bias", False, "proj_bias is False; only True"),
        ("key_bias", True, "2 missing (layer.0.attention.k_proj.bias"),
        ("num_attention_heads", 4, "make heads of 9; a rotary embedding needs a multiple of 4"),
        ("num_register_tokens", 0, "the configuration has no register tokens; set num_register_tokens"),
        ("num_register_tokens", 3, "expected (1, 3, 36)"),
        ("rope_theta", 1.0, "rotary_base=1.0 must be greater than 1"),
        ("rope_theta", "100", "rope_theta is '100', expected a number"),
        ("image_size", [224, 224], "image_size is [224, 224], expected a whole number"),
        ("layer_norm_eps", 0, "layer_norm_eps is 0"),
    ],
)
def test_a_configuration_that_is_none(field: str, value: Any, expected: str, folder: Path):
    before = (folder / "config.json").read_text()
    edit_json(folder / "config.json", lambda config: config.update({field: value}))
    try:
        with pytest.raises((jj.CheckpointError, jj.ArgumentError)) as error:
            read_source(folder)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)
    finally:
        (folder / "config.json").write_text(before)


def test_a_tensor_too_many(tmp_path: Path):
    folder = families.save_folder(families.random_dinov3(**SHAPE), tmp_path / "folder")
    edit_tensors(folder, lambda tensors: tensors.update({"head.weight": torch.ones(2, 36)}))
    with pytest.raises(jj.CheckpointError, match=r"1 unknown \(head.weight\)"):
        read_source(folder)
