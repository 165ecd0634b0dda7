"""What the tests of conversion share: a small DINOv2 in every form, to be kept or to be spoiled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_reference as reference
from safetensors.torch import load_file, save_file

import jepa_jax as jj
from convert_weights.convert import convert, read_source
from jepa_jax.encoders import ENCODERS, EncoderSpec
from jepa_jax.encoders.parameters import named_arrays

NATIVE = 56
NAME = "dinov2-small"

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def model() -> reference.DinoModel:
    """A small DINOv2 of one block."""
    return reference.random_dinov2(48, 3, 1, image_size=NATIVE)


@pytest.fixture(scope="session")
def original(model: reference.DinoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Hugging Face folder, not to be changed."""
    return reference.save_folder(model, tmp_path_factory.mktemp("original") / "folder")


@pytest.fixture(scope="session")
def encoder(original: Path) -> jj.Encoder:
    """The encoder in it."""
    return jj.load_encoder(original)


@pytest.fixture(scope="session")
def original_checkpoint(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder converted, not to be changed."""
    output = tmp_path_factory.mktemp("checkpoint") / "converted"
    convert(read_source(original), output)
    return output


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of the Hugging Face folder, to spoil."""
    return Path(shutil.copytree(original, tmp_path / "folder"))


@pytest.fixture
def checkpoint(original_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the converted folder, to spoil."""
    return Path(shutil.copytree(original_checkpoint, tmp_path / "converted"))


@pytest.fixture
def official(model: reference.DinoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: jj.Encoder) -> Path:
    """An official file of the small model, under a known name that stands for its architecture here."""
    monkeypatch.setitem(ENCODERS, NAME, stand_in(encoder))
    file = tmp_path / "official.pth"
    torch.save(reference.official_state_dict(model), file)
    return file


def stand_in(encoder: jj.Encoder) -> EncoderSpec:
    """The spec of a known name, with the architecture of an encoder."""
    plain = encoder.spec.to_dict()
    return EncoderSpec.from_dict(plain | {"name": NAME, "hub_id": f"facebook/{NAME}"})


def edit_tensors(folder: Path, change: Callable[[Tensors], Any]) -> None:
    """Rewrite a folder's tensors."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def edit_json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite a JSON object."""
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def assert_same(found: jj.Encoder, expected: jj.Encoder) -> None:
    """The same encoder: parameters bit for bit, digest and spec."""
    ours, theirs = dict(named_arrays(found.params)), dict(named_arrays(expected.params))
    assert ours.keys() == theirs.keys()
    for name, leaf in theirs.items():
        assert ours[name].dtype == leaf.dtype
        np.testing.assert_array_equal(
            np.asarray(ours[name]).view(np.uint32), np.asarray(leaf).view(np.uint32), err_msg=name
        )
    assert found.spec == expected.spec
    assert found.digest == expected.digest
