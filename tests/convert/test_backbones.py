"""Fine-tuned models: the encoder is loaded as AutoModel loads it, and the head is named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_reference as reference
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    IJepaConfig,
    IJepaForImageClassification,
    PreTrainedModel,
)
from typer.testing import CliRunner

import jepa_jax as jj
from convert_weights.convert import read_source
from jepa_jax.cli.app import app

SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "image_size": 28,
    "patch_size": 14,
    "num_labels": 5,
    "attn_implementation": "eager",
}
MODELS: dict[str, Any] = {
    "dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**SMALL)),
    "registers": lambda: Dinov2WithRegistersForImageClassification(Dinov2WithRegistersConfig(**SMALL)),
    "ijepa": lambda: IJepaForImageClassification(IJepaConfig(**SMALL, intermediate_size=48)),
}


def save(name: str, folder: Path) -> PreTrainedModel:
    model = MODELS[name]()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.ndim == 1))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_as_auto_model(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    whole = type(save(name, tmp_path)).__name__
    with caplog.at_level(logging.WARNING):
        encoder = jj.load_encoder(tmp_path)
    assert f"left out: classifier.bias, classifier.weight (the head of {whole})" in caplog.text
    images = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    model = AutoModel.from_pretrained(tmp_path, attn_implementation="eager").double().eval()
    with torch.inference_mode():
        outputs = model(torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2))
    expected = (outputs.last_hidden_state.mean(1) if name == "ijepa" else outputs.pooler_output).numpy()
    # Two blocks in float32.
    np.testing.assert_allclose(np.asarray(encoder(images)), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("name", MODELS)
def test_state_dict_that_was_saved_by_itself(name: str, prefix: str, tmp_path: Path):
    model = save(name, tmp_path)
    expected = jj.load_encoder(tmp_path).digest
    (tmp_path / "model.safetensors").unlink()
    state = {prefix + key: tensor for key, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert jj.load_encoder(tmp_path).digest == expected


def test_convert_names_the_head(tmp_path: Path):
    save("dinov2", tmp_path / "model")
    command = ["convert", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    shown = " ".join(done.output.split())
    assert "left out classifier.bias, classifier.weight: the head of Dinov2ForImageClassification" in shown
    assert "recipe the encoder's own" in shown


def test_what_is_beside_a_bare_encoder_is_unknown(tmp_path: Path):
    reference.save_folder(reference.random_dinov2(24, 3, 1, image_size=28), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"dinov2.layernorm.weight": torch.ones(24)}, tmp_path / "model.safetensors")
    with pytest.raises(jj.CheckpointError, match=r"1 unknown \(dinov2\.layernorm\.weight\)"):
        read_source(tmp_path)


def test_a_head_that_would_stand_in_for_the_encoder(tmp_path: Path):
    save("dinov2", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"layernorm.weight": torch.ones(24)}, tmp_path / "model.safetensors")
    with pytest.raises(jj.CheckpointError, match="missing"):
        read_source(tmp_path)
