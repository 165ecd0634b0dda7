"""Weights on disk become exactly the encoder that they describe, or one error that says what is wrong with them."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import torch_reference as reference
from safetensors.torch import load_file, save_file

import jepa_jax as jj
from convert_weights.convert import convert, read_source
from jepa_jax.encoders import ENCODERS, EncoderSpec
from jepa_jax.encoders.encoder import named_arrays

NATIVE = 56
NAME = "dinov2-small"

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model() -> reference.DinoModel:
    """A small DINOv2 of one block."""
    return reference.random_dinov2(48, 3, 1, image_size=NATIVE)


@pytest.fixture(scope="module")
def original(model: reference.DinoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Hugging Face folder, not to be changed."""
    return reference.save_folder(model, tmp_path_factory.mktemp("original") / "folder")


@pytest.fixture(scope="module")
def encoder(original: Path) -> jj.Encoder:
    """The encoder in it."""
    return jj.load_encoder(original)


@pytest.fixture(scope="module")
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
    advice = rf"^{hub_id} is not in the local cache.*hf download {hub_id} --local-dir DIR.*load_encoder\('DIR'\)"
    with pytest.raises(jj.CheckpointError, match=advice):
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


# Tensors that are not those of the architecture.


def _remove_key_bias(tensors: Tensors) -> None:
    del tensors["encoder.layer.0.attention.attention.key.bias"]


def _add_head(tensors: Tensors) -> None:
    tensors["classifier.weight"] = torch.zeros(10, 48)


def _transpose_fc1(tensors: Tensors) -> None:
    name = "encoder.layer.0.mlp.fc1.weight"
    tensors[name] = tensors[name].T.contiguous()


def _as_int8(tensors: Tensors) -> None:
    tensors["layernorm.bias"] = tensors["layernorm.bias"].to(torch.int8)


def _as_float64(tensors: Tensors) -> None:
    tensors["layernorm.bias"] = tensors["layernorm.bias"].to(torch.float64)


def _zero_in_norm(tensors: Tensors) -> None:
    tensors["layernorm.weight"][3] = 0


def _infinity_in_norm(tensors: Tensors) -> None:
    tensors["layernorm.weight"][3] = torch.inf


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_remove_key_bias, r"1 missing \(encoder\.layer\.0\.attention\.attention\.key\.bias\)"),
        (_add_head, r"1 unknown \(classifier\.weight\)"),
        (_transpose_fc1, r"encoder\.layer\.0\.mlp\.fc1\.weight has shape \(48, 192\), expected \(192, 48\)"),
        (_as_int8, r"layernorm\.bias has dtype int8, expected one of float32"),
        (_as_float64, r"layernorm\.bias has dtype float64, expected one of float32"),
        (_zero_in_norm, r"norm\.scale .*has 1 values that are zero or not finite"),
        (_infinity_in_norm, r"norm\.scale .*has 1 values that are zero or not finite"),
    ],
)
def test_unfit_tensors(folder: Path, change: Callable[[Tensors], None], match: str):
    edit_tensors(folder, change)
    with pytest.raises(jj.CheckpointError, match=match):
        jj.load_encoder(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state.pop("blocks.0.ls1.gamma"), r"1 missing \(blocks\.0\.ls1\.gamma\)"),
        (lambda state: state.update(head=torch.zeros(3)), r"1 unknown \(head\)"),
        (lambda state: state.update(cls_token=torch.zeros(48)), r"cls_token has shape \(48,\), expected \(1, 1, 48\)"),
        (lambda state: state.update(cls_token=state["cls_token"].double()), r"cls_token has dtype float64"),
        (lambda state: state.update(epoch=3), r"no flat dictionary of tensors"),
    ],
    ids=["missing", "extra", "shape", "dtype", "training state"],
)
def test_unfit_official_tensors(official: Path, change: Callable[[Tensors], Any], match: str):
    state = torch.load(official)
    change(state)
    torch.save(state, official)
    with pytest.raises(jj.CheckpointError, match=match):
        read_source(official, NAME)


# Files that are damaged, or something else.


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_truncated_safetensors(folder: Path, share: float):
    truncate(folder / "model.safetensors", share)
    with pytest.raises(jj.CheckpointError, match=r"model\.safetensors is not a whole safetensors file"):
        jj.load_encoder(folder)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_truncated_official_file(official: Path, share: float):
    truncate(official, share)
    with pytest.raises(jj.CheckpointError, match=r"official\.pth is not a plain dictionary of tensors.*truncated"):
        read_source(official, NAME)


def truncate(file: Path, share: float) -> None:
    """Keep the first part of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("lost", ["a shard", "the index"])
def test_incomplete_shards(model: reference.DinoModel, tmp_path: Path, lost: str):
    sharded = reference.save_folder(model, tmp_path / "folder", max_shard_size="50KB")
    if lost == "a shard":
        shard = sorted(sharded.glob("model-*.safetensors"))[1]
        shard.unlink()
        match = rf"lacks {shard.name}, which its index names"
    else:
        (sharded / "model.safetensors.index.json").write_text('{"weight_map": 3}')
        match = r"model\.safetensors\.index\.json is not an index of shards"
    with pytest.raises(jj.CheckpointError, match=match):
        jj.load_encoder(sharded)


class Payload:
    """Pickles to a call that creates a file: the shape of an attack."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    ("place", "match"),
    [
        ("official.pth", r"official\.pth is not a plain dictionary .* pickle that would run code"),
        ("folder/pytorch_model.bin", r"pytorch_model\.bin is not a plain dictionary .* pickle that would run code"),
        ("folder/model.safetensors", r"model\.safetensors is not a whole safetensors file"),
    ],
)
@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_pickles_are_not_run(folder: Path, tmp_path: Path, place: str, match: str, container: str):
    trace = tmp_path / "payload-was-here"
    content = {"cls_token": torch.zeros(1), "more": Payload(trace)}
    (folder / "model.safetensors").unlink()
    file = tmp_path / place
    if container == "torch":
        torch.save(content, file)
        torch.load(io.BytesIO(file.read_bytes()), weights_only=False)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))  # of another protocol PyTorch warns first
        pickle.loads(file.read_bytes())
    # The payload is live: whoever unpickles the file runs it.
    trace.unlink()

    source, name = (file, NAME) if file.suffix == ".pth" else (folder, None)
    with pytest.raises(jj.CheckpointError, match=match):
        read_source(source, name)
    assert not trace.exists()


# Descriptions that are wrong.


def test_folder_without_config(folder: Path):
    (folder / "config.json").unlink()
    with pytest.raises(jj.CheckpointError, match=r"neither encoder\.json.* nor config\.json"):
        jj.load_encoder(folder)
    with pytest.raises(jj.CheckpointError, match=r"has no config\.json"):
        read_source(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\x01"])
def test_config_that_is_no_object(folder: Path, text: str):
    (folder / "config.json").write_text(text)
    with pytest.raises(jj.CheckpointError, match=r"config\.json (is not readable JSON|holds no JSON object)"):
        jj.load_encoder(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model_type": "vit"}, r"model_type is 'vit'; supported are dinov2"),
        ({"model_type": None}, r"model_type is None"),
        ({"hidden_act": "relu"}, r"hidden_act is 'relu'; only 'gelu' is supported"),
        ({"num_channels": 1}, r"num_channels is 1; only 3"),
        ({"hidden_size": "48"}, r"hidden_size is '48', expected a whole number"),
        ({"image_size": [56, 56]}, r"image_size is \[56, 56\], expected a whole number"),
        ({"num_attention_heads": 5}, r"width=48 is not a multiple of heads=5"),
        ({"num_attention_heads": 0}, r"heads"),
        ({"patch_size": 0}, r"patch_size"),
        ({"num_hidden_layers": 2}, r"18 missing \(encoder\.layer\.1\."),
    ],
    ids=str,
)
def test_unfit_config(folder: Path, change: dict[str, Any], match: str):
    edit_json(folder / "config.json", lambda config: config.update(change))
    with pytest.raises(jj.JepaJaxError, match=match):
        jj.load_encoder(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 1}', "\x00"])
def test_description_that_is_no_description(checkpoint: Path, text: str):
    (checkpoint / "encoder.json").write_text(text)
    with pytest.raises(jj.CheckpointError, match=r"encoder\.json .*convert the weights again"):
        jj.load_encoder(checkpoint)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.update(format_version=99), r"format version 99; this jepa_jax reads version 1"),
        (
            lambda d: d["spec"].update(colour="red"),
            r"encoder: .*unknown fields \['colour'\].*convert the weights again",
        ),
        (lambda d: d["spec"]["vit"].update(colour=1), r"encoder\.vit: .*unknown fields \['colour'\]"),
        (lambda d: d["spec"]["vit"].pop("heads"), r"encoder\.vit: missing fields \['heads'\]"),
        (lambda d: d["spec"]["vit"].update(width="48"), r"encoder\.vit\.width: '48' is not of type"),
        (lambda d: d["spec"]["vit"].update(pooling="max"), r"encoder\.vit\.pooling: 'max' is none of"),
        (lambda d: d["spec"]["vit"].update(heads=5), r"width=48 is not a multiple of heads=5"),
        (lambda d: d["spec"]["preprocess"].update(mean=5), r"encoder\.preprocess\.mean: 5 "),
        (lambda d: d["spec"]["preprocess"].update(mean=[0.5, 0.5, 0.5]), r"does not hold what its digest says"),
        (lambda d: d["spec"]["vit"].update(depth=2), r"damaged or incomplete"),
        (lambda d: d.update(digest="0" * 64), r"does not hold what its digest says"),
    ],
    ids=["version", "field", "vit field", "lost", "type", "choice", "heads", "mean", "recipe", "depth", "digest"],
)
def test_wrong_description(checkpoint: Path, change: Callable[[dict[str, Any]], Any], match: str):
    edit_json(checkpoint / "encoder.json", change)
    with pytest.raises(jj.CheckpointError, match=match):
        jj.load_encoder(checkpoint)


def test_checkpoint_without_params(checkpoint: Path):
    shutil.rmtree(checkpoint / "params")
    with pytest.raises(jj.CheckpointError, match=r"params is damaged or incomplete.*convert the weights again"):
        jj.load_encoder(checkpoint)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("harm", ["deleted", "emptied", "halved", "flipped"])
def test_damaged_checkpoint_is_refused_or_whole(
    checkpoint: Path, original_checkpoint: Path, encoder: jj.Encoder, harm: str
):
    # Orbax keeps a dozen files, some of which it can do without. No damage to any of them may change a weight.
    messages = []
    for file in sorted(original_checkpoint.glob("params/**/*")):
        content = file.read_bytes() if file.is_file() else b""
        if not content:
            continue
        target = checkpoint / file.relative_to(original_checkpoint)
        if harm == "deleted":
            target.unlink()
        else:
            middle = len(content) // 2
            flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
            target.write_bytes({"emptied": b"", "halved": content[:middle], "flipped": flipped}[harm])
        try:
            assert_same(jj.load_encoder(checkpoint), encoder)
        except jj.CheckpointError as error:
            messages.append(str(error))
        target.write_bytes(content)
    # The data and their indices, at least.
    assert len(messages) >= 3
    assert all(message.endswith("convert the weights again.") and "\n" not in message for message in messages)
    gc.collect()  # Orbax's abandoned reads complain when they are collected: here, and not in another test
