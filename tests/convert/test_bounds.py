"""Descriptions and tensors that no encoder has: one sentence, at once, whatever a stranger wrote."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conversion_files import NAME, edit_json, edit_tensors
from safetensors.torch import load_file, save_file

import jepa_jax as jj
from convert_weights.convert import read_source

pytest_plugins = ["conversion_files"]  # the fixtures

DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
BIAS = "layernorm.bias"


def refusal(source: Path, name: str | None = None) -> str:
    with pytest.raises((jj.CheckpointError, jj.ArgumentError)) as error:
        assert read_source(source, name).encoder
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000, expected a whole number from 1 to 1048576"),
        ("num_hidden_layers", 10**6, "num_hidden_layers is 1000000, but"),
        ("num_hidden_layers", 0, "num_hidden_layers is 0, expected a whole number from 1"),
        ("num_hidden_layers", True, "num_hidden_layers is True, expected a whole number"),
        ("num_hidden_layers", 1.0, "num_hidden_layers is 1.0, expected a whole number"),
        ("hidden_size", -48, "hidden_size is -48, expected a whole number from 1"),
        ("hidden_size", 10**400, "expected a whole number from 1"),
        ("num_attention_heads", 5, "config.json: width=48 is not a multiple of heads=5"),
        ("patch_size", 0, "patch_size is 0, expected a whole number from 1"),
        ("patch_size", 13, "not a multiple of patch_size=13"),
        ("image_size", -56, "image_size is -56"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps is nan, expected a number from 1e-30 to 1"),
        ("layer_norm_eps", -1, "layer_norm_eps is -1, expected a number"),
        ("layer_norm_eps", 0, "layer_norm_eps is 0, expected a number"),
        ("layer_norm_eps", 1e-60, "layer_norm_eps is 1e-60, expected a number"),
        ("layer_norm_eps", float("inf"), "layer_norm_eps is inf, expected a number"),
        ("layer_norm_eps", True, "layer_norm_eps is True, expected a number"),
        ("mlp_ratio", float("nan"), "mlp_ratio is nan, expected a number"),
        ("mlp_ratio", -4, "mlp_ratio is -4, expected a number"),
        ("mlp_ratio", 1e300, "mlp_ratio is 1e+300, expected a number"),
        ("mlp_ratio", 10**400, "expected a number"),
        ("qkv_bias", 1, "qkv_bias is 1, expected true or false"),
        ("use_swiglu_ffn", "no", "use_swiglu_ffn is 'no', expected true or false"),
        ("hidden_act", ["gelu"], "hidden_act is ['gelu']; only 'gelu'"),
        ("model_type", ["dinov2"], "model_type is ['dinov2'], expected a string"),
        ("model_type", "a\nb" * 999, "supported are dinov2"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_fields(field: str, value: Any, expected: str, folder: Path):
    edit_json(folder / "config.json", lambda config: config.update({field: value}))
    assert expected in refusal(folder)


def test_negative_registers(folder: Path):
    change = {"model_type": "dinov2_with_registers", "num_register_tokens": -5}
    edit_json(folder / "config.json", lambda config: config.update(change))
    assert "num_register_tokens is -5, expected a whole number from 0" in refusal(folder)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (DEEP.encode(), "nested too deep"),
        (b'{"model_type": "dinov2", "model_type": "clip"}', "the key 'model_type' stands there twice"),
        ('{"model_type": "dinov2"}'.encode("utf-16"), "is not readable JSON"),
        (b"\xff\xfe\x00", "is not readable JSON"),
        (b"9" * 10_000, "is not readable JSON"),
        (b"[]", "holds no JSON object"),
        (b" " * (2**24 + 1), "is larger than 16 MiB"),
    ],
    ids=["deep", "twice", "utf-16", "no text", "a long number", "a list", "huge"],
)
def test_files_that_are_no_descriptions(file: str, content: bytes, expected: str, folder: Path):
    (folder / file).write_bytes(content)
    assert expected in refusal(folder)


@pytest.mark.parametrize("key", ["register_tokens", "norm_eps", "projection"])
def test_architectures_that_cannot_be(key: str, checkpoint: Path):
    wrong = {"register_tokens": -5, "norm_eps": float("nan"), "projection": 0}[key]
    edit_json(checkpoint / "encoder.json", lambda description: description["spec"]["vit"].update({key: wrong}))
    with pytest.raises(jj.CheckpointError, match=f"{key}={wrong} must"):
        jj.load_encoder(checkpoint)


def test_names_that_are_no_text(folder: Path):
    edit_tensors(folder, lambda tensors: tensors.update({"new\nline" + "x" * 5000: torch.zeros(1)}))
    assert "1 unknown" in refusal(folder)


def overlapping(header: dict[str, Any]) -> None:
    header[BIAS]["data_offsets"] = header["layernorm.weight"]["data_offsets"]


def beyond(header: dict[str, Any]) -> None:
    header[BIAS]["data_offsets"] = [2**40, 2**40 + 192]


def huge(header: dict[str, Any]) -> None:
    header[BIAS]["shape"] = [2**62, 2**62]


def unknown_dtype(header: dict[str, Any]) -> None:
    header[BIAS]["dtype"] = "F32X"


@pytest.mark.parametrize("change", [overlapping, beyond, huge, unknown_dtype])
def test_headers(change: Callable[[dict[str, Any]], None], folder: Path):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    written = json.dumps(header).encode()
    file.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + size :])
    assert "model.safetensors is not a whole safetensors file" in refusal(folder)


def in_pytorch_file(folder: Path, change: Callable[[dict[Any, Any]], Any]) -> Path:
    tensors: dict[Any, Any] = dict(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    change(tensors)
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch's, of such tensors
@pytest.mark.parametrize(
    ("replace", "expected"),
    [
        (lambda tensor: tensor.to_sparse(), f"{BIAS} is not a dense one (torch.sparse_coo)"),
        (lambda tensor: tensor.to("meta"), f"{BIAS} has no values"),
        (lambda tensor: tensor.to(torch.complex64), f"{BIAS} has dtype complex64"),
        (lambda tensor: torch.zeros(1).expand(48), f"{BIAS} shows 48 values, of which fewer are stored"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), f"{BIAS} is quantised"),
        (lambda tensor: torch.full_like(tensor, torch.nan), "48 values of norm.bias are not finite"),
        (lambda tensor: 3, "holds no flat dictionary of tensors"),
    ],
    ids=["sparse", "meta", "complex", "repeated", "quantised", "nan", "number"],
)
def test_tensors_that_are_no_arrays(replace: Callable[[torch.Tensor], Any], expected: str, folder: Path):
    source = in_pytorch_file(folder, lambda tensors: tensors.update({BIAS: replace(tensors[BIAS])}))
    assert expected in refusal(source)


def test_keys_that_are_no_names(folder: Path):
    source = in_pytorch_file(folder, lambda tensors: tensors.update({3: tensors[BIAS]}))
    assert "holds no flat dictionary" in refusal(source)


@pytest.mark.parametrize("member", ["data/0", "data.pkl", "version"])
def test_changed_bytes_of_an_archive(official: Path, member: str):
    with zipfile.ZipFile(official) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(f"/{member}"))
        content = archive.read(info)
    data = bytearray(official.read_bytes())
    at = data.index(content, info.header_offset) + len(content) // 2
    data[at] ^= 0x40
    official.write_bytes(data)
    assert "is a damaged archive" in refusal(official, NAME)


def test_compressed_archive(official: Path):
    with zipfile.ZipFile(official) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(official, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "is a compressed archive" in refusal(official, NAME)


def test_a_shard_that_lies_twice(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for shard in ("model-1.safetensors", "model-2.safetensors"):
        save_file(tensors, folder / shard)
    names = dict.fromkeys(tensors, "model-1.safetensors") | {BIAS: "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert "name different tensors" in refusal(folder)


def test_a_shipped_name_has_no_file(official: Path):
    assert "shipped with this package" in refusal(official, "jepa-tiny")
