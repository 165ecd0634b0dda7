"""Weights that are damaged, foreign or badly described: one error that says what is wrong with them."""

from __future__ import annotations

import gc
import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_reference as reference
from conversion_files import NAME, Tensors, assert_same, edit_json, edit_tensors

import jepa_jax as jj
from convert_weights.convert import read_source

pytest_plugins = ["conversion_files"]  # the fixtures


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


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format_version": 1}', "\x00", pytest.param("[" * 100_000, id="deep")]
)
def test_description_that_is_no_description(checkpoint: Path, text: str):
    (checkpoint / "encoder.json").write_text(text)
    with pytest.raises(jj.CheckpointError, match=r"encoder\.json .*convert the weights again"):
        jj.load_encoder(checkpoint)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.update(format_version=99), r"format version 99; this jepa_jax reads versions 1, 2"),
        (
            lambda d: d["spec"].update(colour="red"),
            r"encoder: .*unknown fields \['colour'\].*convert the weights again",
        ),
        (lambda d: d["spec"]["vit"].update(colour=1), r"encoder\.vit: .*unknown fields \['colour'\]"),
        (lambda d: d["spec"]["vit"].pop("heads"), r"encoder\.vit: missing fields \['heads'\]"),
        (lambda d: d["spec"]["vit"].update(width="48"), r"encoder\.vit\.width: '48' is not of type"),
        (lambda d: d["spec"]["vit"].update(pooling="max"), r"encoder\.vit\.pooling: 'max' is none of"),
        (lambda d: d["spec"]["vit"].update(heads=5), r"width=48 is not a multiple of heads=5"),
        (lambda d: d["spec"].update(preprocess={"mean": 5}), r"encoder\.preprocess\.mean: 5 "),
        (lambda d: d["spec"].update(preprocess={"mean": [0.5] * 3}), r"does not hold what its digest says"),
        (lambda d: d["spec"]["vit"].update(depth=2), r"damaged or incomplete"),
        (
            lambda d: d["spec"]["vit"].update(depth=10**9),
            r"damaged or incomplete \(depth is 1000000000, and there are",
        ),
        (
            lambda d: d["spec"]["vit"].update(mlp_width=10**6),
            r"damaged or incomplete \(blocks\.0\.mlp\.fc1\.\w+ has",
        ),
        (lambda d: d.update(digest="0" * 64), r"does not hold what its digest says"),
    ],
    ids=[
        "version",
        "field",
        "vit field",
        "lost",
        "type",
        "choice",
        "heads",
        "mean",
        "recipe",
        "depth",
        "huge depth",
        "width",
        "digest",
    ],
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
