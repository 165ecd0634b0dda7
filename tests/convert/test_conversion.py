"""Weights on disk become exactly the encoder that they describe; the hub; arguments that cannot work."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import torch_reference as reference
from conversion_files import NAME, Tensors, assert_same, edit_tensors, stand_in

import jepa_jax as jj
from convert_weights.convert import convert, read_source
from jepa_jax.encoders import ENCODERS

pytest_plugins = ["conversion_files"]  # the fixtures


# What is kept.


def test_checkpoint_is_the_same(original_checkpoint: Path, original: Path, encoder: jj.Encoder):
    assert_same(jj.load_encoder(original_checkpoint), encoder)
    origin = json.loads((original_checkpoint / "encoder.json").read_text())["origin"]
    digest = hashlib.sha256((original / "model.safetensors").read_bytes()).hexdigest()
    assert origin == {"format": "huggingface:dinov2", "sha256": {"model.safetensors": digest}}


def test_official_checkpoint_is_the_same(official: Path, tmp_path: Path):
    source = read_source(official, NAME)
    convert(source, tmp_path / "output")
    assert_same(jj.load_encoder(tmp_path / "output"), source.encoder)


def test_shards_are_the_same(model: reference.DinoModel, encoder: jj.Encoder, tmp_path: Path):
    sharded = reference.save_folder(model, tmp_path / "folder", max_shard_size="50KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    assert not (sharded / "model.safetensors").exists()
    assert_same(jj.load_encoder(sharded), encoder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_widens_exactly(folder: Path, dtype: torch.dtype):
    def narrow(tensors: Tensors) -> None:
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    def widen(tensors: Tensors) -> None:
        tensors.update({name: tensor.to(torch.float32) for name, tensor in tensors.items()})

    edit_tensors(folder, narrow)
    half = jj.load_encoder(folder)
    edit_tensors(folder, widen)
    assert_same(half, jj.load_encoder(folder))


def test_half_precision_official_widens_exactly(official: Path):
    narrow = {name: tensor.to(torch.bfloat16) for name, tensor in torch.load(official).items()}
    torch.save(narrow, official)
    half = read_source(official, NAME).encoder
    torch.save({name: tensor.to(torch.float32) for name, tensor in narrow.items()}, official)
    assert_same(half, read_source(official, NAME).encoder)


# The hub.


@pytest.fixture
def hub_cache(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache, offline, in which the small model lies as facebook/dinov2-small."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / f"models--facebook--{NAME}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(original, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return tmp_path / "hub"


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("source", [NAME, f"facebook/{NAME}"])
def test_cached_hub_model(source: str, encoder: jj.Encoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ENCODERS, NAME, stand_in(encoder))
    found = jj.load_encoder(source)
    assert found.spec == ENCODERS[NAME]
    assert_same(found, jj.Encoder(ENCODERS[NAME], encoder.params))


@pytest.mark.usefixtures("hub_cache")
def test_cached_hub_model_of_another_kind():
    # What the name promises is not what the folder describes.
    with pytest.raises(jj.JepaJaxError, match=rf"{NAME}.*is not what .*config.json describes"):
        jj.load_encoder(NAME)


@pytest.mark.usefixtures("hub_cache")
def test_hub_model_without_a_known_name(hub_cache: Path):
    (hub_cache / f"models--facebook--{NAME}").rename(hub_cache / "models--someone--own-vit")
    assert jj.load_encoder("someone/own-vit").spec.name == "someone/own-vit"


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize(
    ("source", "hub_id"),
    [("dinov2-base", "facebook/dinov2-base"), ("someone/unknown", "someone/unknown")],
)
def test_hub_out_of_reach(source: str, hub_id: str):
    advice = rf"^{hub_id} is not in the local cache.*hf download {hub_id} --local-dir DIR.*DIR in place of the name"
    with pytest.raises(jj.CheckpointError, match=advice):
        jj.load_encoder(source)


@pytest.mark.parametrize("source", ["./missing", "/nowhere/at/all", "a/b/c", "folder/", "../x/y"])
def test_a_missing_directory_is_not_called_a_hub_outage(source: str):
    with pytest.raises(jj.ArgumentError, match=rf"^model {source}: there is no such directory\. Give one that"):
        jj.load_encoder(source)


def test_incomplete_hub_cache(hub_cache: Path):
    next(hub_cache.rglob("model.safetensors")).unlink()
    with pytest.raises(jj.CheckpointError, match=r"no model\.safetensors.*download"):
        jj.load_encoder(f"facebook/{NAME}")


# Arguments that cannot work.


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(jj.ArgumentError, match=r"model 'dinov2-smal' is unknown; did you mean 'dinov2-small'"):
        jj.load_encoder("dinov2-smal")


def test_image_size_between_patches(original: Path):
    with pytest.raises(jj.ArgumentError, match=r"image_size=100 is not a multiple of the patch size.*\(14\).*98"):
        jj.load_encoder(original, image_size=100)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 3, 56, 56), r"\(1, 3, 56, 56\).*\[B, H, W, 3\]"),
        ((1, 56, 56, 4), r"\(1, 56, 56, 4\).*\[B, H, W, 3\]"),
        ((56, 56, 3), r"\(56, 56, 3\).*\[B, H, W, 3\]"),
        ((1, 56, 50, 3), r"56 x 50 pixels.*patch size 14"),
        ((1, 7, 56, 3), r"7 x 56 pixels.*patch size 14"),
    ],
)
def test_images_of_a_wrong_shape(encoder: jj.Encoder, shape: tuple[int, ...], match: str):
    with pytest.raises(jj.ArgumentError, match=match):
        encoder(np.zeros(shape, np.float32))
    with pytest.raises(jj.ArgumentError, match=match):
        jj.score(encoder, np.zeros(shape, np.float32))


def test_images_that_are_not_preprocessed(encoder: jj.Encoder):
    raw = np.zeros((1, 56, 56, 3), np.uint8)
    with pytest.raises(jj.ArgumentError, match=r"uint8.*preprocess"):
        encoder(raw)
    with pytest.raises(jj.ArgumentError, match=r"uint8.*preprocess"):
        jj.score(encoder, raw)


def test_name_against_the_description(original: Path):
    with pytest.raises(jj.ArgumentError, match=r"'dinov2-base' is not what .*config\.json describes"):
        read_source(original, "dinov2-base")


def test_file_without_a_name(official: Path):
    with pytest.raises(jj.ArgumentError, match=r"official\.pth does not say what it holds.*--model.*dinov2-small"):
        read_source(official)
    with pytest.raises(jj.ArgumentError, match=r"official\.pth is a file.*jepa-jax convert"):
        jj.load_encoder(official)


def test_output_directory_in_use(original: Path, checkpoint: Path):
    before = (checkpoint / "encoder.json").read_bytes()
    with pytest.raises(jj.ArgumentError, match=r"output directory .*converted is not empty"):
        convert(read_source(original), checkpoint)
    assert (checkpoint / "encoder.json").read_bytes() == before
