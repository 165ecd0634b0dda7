"""Weights and their descriptions, of small encoders of each family, damaged and then loaded as a user loads them.

Descriptions are damaged in their bytes, or else a field gets a value that it should not have.
"""

from __future__ import annotations

import functools
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzzing import Target
from safetensors.numpy import save

from convert_weights import openclip, timm_folder
from convert_weights.convert import read_source
from convert_weights.export import export
from convert_weights.tables import export_tensors
from jepa_jax.amortised import Amortised, feature_count, fit_amortised
from jepa_jax.encoders import Encoder, EncoderSpec, ViTSpec
from jepa_jax.encoders.clip import clip_recipe
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.errors import ArgumentError, CheckpointError

_SHAPE: dict[str, Any] = {
    "width": 8,
    "depth": 1,
    "heads": 2,
    "patch_size": 14,
    "native_image_size": 28,
    "mlp_width": 16,
}
_SPECS = {
    "dinov2": ViTSpec(**_SHAPE, layer_scale=True, register_tokens=2),
    "dinov3": ViTSpec(**_SHAPE, layer_scale=True, register_tokens=1, rotary_base=100.0, key_bias=False),
    "ijepa": ViTSpec(**_SHAPE, class_token=False, pooling="mean_patches"),
    "siglip": ViTSpec(**_SHAPE, class_token=False, pooling="attention", activation="gelu_tanh", cut_edges=True),
    "clip": ViTSpec(**_SHAPE, pre_norm=True, patch_bias=False, projection=6, norm_eps=1e-5),
}

Files = dict[str, bytes]


@functools.cache
def _encoder(family: str) -> Encoder:
    spec = EncoderSpec(f"small-{family}", family, _SPECS[family], clip_recipe(28))
    return Encoder(spec, initialize_params(spec.vit, 0))


@functools.cache
def _folder(family: str) -> Files:
    """The files of a Hugging Face folder."""
    with tempfile.TemporaryDirectory() as folder:
        export(_encoder(family), Path(folder) / "model")
        return {path.name: path.read_bytes() for path in (Path(folder) / "model").iterdir()}


@functools.cache
def _pytorch_folder(family: str) -> Files:
    """The same with a pickle."""
    from safetensors.torch import load

    files = dict(_folder(family))
    return files | {"pytorch_model.bin": _pickled(load(files.pop("model.safetensors")))}


@functools.cache
def _openclip_folder() -> Files:
    """The files of an OpenCLIP repository."""
    tensors = export_tensors(_encoder("clip").params, openclip.table(_SPECS["clip"]))
    vision = {"width": 8, "layers": 1, "head_width": 4, "patch_size": 14, "image_size": 28, "mlp_ratio": 2.0}
    config = {
        "model_cfg": {"embed_dim": 6, "vision_cfg": vision, "text_cfg": {}},
        "preprocess_cfg": {"mean": [0.5] * 3},
    }
    return {
        "open_clip_pytorch_model.bin": _pickled({name: torch.tensor(array) for name, array in tensors.items()}),
        "open_clip_config.json": json.dumps(config).encode(),
    }


@functools.cache
def _timm_folder(pickled: bool = False) -> Files:
    """The files of a repository of timm's."""
    vit = ViTSpec(**_SHAPE, layer_scale=True, position_resize="bicubic_antialias")
    tensors = export_tensors(initialize_params(vit, 0), timm_folder.table(vit))
    args = {"img_size": 28, "embed_dim": 8, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "reg_tokens": 0}
    pretrained = {"input_size": [3, 28, 28], "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3, "license": "mit"}
    config = {
        "architecture": "vit_small_patch14_dinov2",
        "num_classes": 0,
        "global_pool": "token",
        "model_args": args,
        "pretrained_cfg": pretrained | {"interpolation": "bicubic", "crop_mode": "center", "fixed_input_size": False},
    }
    weights = (
        {"pytorch_model.bin": _pickled({name: torch.tensor(array) for name, array in tensors.items()})}
        if pickled
        else {"model.safetensors": save(tensors)}
    )
    return weights | {"config.json": json.dumps(config).encode()}


def _pickled(tensors: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def _write(files: Files, folder: Path, name: str) -> Path:
    for other, content in files.items():
        if other != "model.safetensors" or name != "pytorch_model.bin":
            (folder / other).write_bytes(content)
    return folder / name


def _any_family(random: np.random.Generator) -> str:
    return list(_SPECS)[int(random.integers(len(_SPECS)))]


def _make_safetensors(random: np.random.Generator, folder: Path) -> Path:
    if random.random() < 0.2:
        return _write(_timm_folder(), folder, "model.safetensors")
    return _write(_folder(_any_family(random)), folder, "model.safetensors")


def _make_pytorch(random: np.random.Generator, folder: Path) -> Path:
    if random.random() < 0.5:
        return _write(_openclip_folder(), folder, "open_clip_pytorch_model.bin")
    if random.random() < 0.3:
        return _write(_timm_folder(pickled=True), folder, "pytorch_model.bin")
    return _write(_pytorch_folder(_any_family(random)), folder, "pytorch_model.bin")


def _make_config(random: np.random.Generator, folder: Path) -> Path:
    if random.random() < 0.3:
        return _with_wrong_value(random, _write(_openclip_folder(), folder, "open_clip_config.json"))
    if random.random() < 0.3:
        return _with_wrong_value(random, _write(_timm_folder(), folder, "config.json"))
    return _with_wrong_value(random, _write(_folder(_any_family(random)), folder, "config.json"))


def _make_recipe(random: np.random.Generator, folder: Path) -> Path:
    path = _write(_folder(_any_family(random)), folder, "preprocessor_config.json")
    if random.random() < 0.3:
        whole = folder / "processor_config.json"
        whole.write_text(f'{{"image_processor": {path.read_text()}}}')
        path = whole
    return _with_wrong_value(random, path)


@functools.cache
def _predictor() -> Files:
    """The files of a fitted predictor of DINOv2's scores."""
    rng = np.random.default_rng(0)
    found = rng.standard_normal((100, feature_count(_encoder("dinov2")))).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        fit_amortised(_encoder("dinov2"), None, found[:, 0], features=found).save(Path(folder) / "head")
        return {path.name: path.read_bytes() for path in (Path(folder) / "head").iterdir()}


def _make_predictor(random: np.random.Generator, folder: Path) -> Path:
    path = _write(_predictor(), folder, "amortised.json")
    return _with_wrong_value(random, path) if random.random() < 0.4 else folder


def _load_the_same_predictor(path: Path) -> None:
    """Its digest covers all that predictions hang on."""
    folder = path if path.is_dir() else path.parent
    digest = json.loads(_predictor()["amortised.json"])["digest"]
    assert Amortised.load(folder, _encoder("dinov2")).digest == digest, "a changed predictor was taken"


_WRONG = (
    "NaN",
    "-Infinity",
    "1e999",
    "-1",
    "0",
    "1000000000",
    "9" * 4000,
    "1" + "0" * 400,
    "1e-45",
    "0.5",
    "true",
    "false",
    "null",
    '""',
    '"48"',
    '"\\u0000\\n"',
    "[]",
    "[28, 28]",
    "[null]",
    "{}",
    '{"height": 28, "width": 28}',
    '{"shortest_edge": null}',
    "[" * 100_000 + "]" * 100_000,
)


def _with_wrong_value(random: np.random.Generator, path: Path) -> Path:
    """In two of three files, another value for one field, at any depth: then bytes are changed of another file."""
    if random.random() < 0.34:
        return path
    data = json.loads(path.read_text())
    holder = data
    name = _any_key(random, holder)
    while isinstance(holder[name], dict) and holder[name] and random.random() < 0.9:
        holder = holder[name]
        name = _any_key(random, holder)
    holder[name] = "WRONG"
    wrong = _WRONG[int(random.integers(len(_WRONG)))]
    path.write_text(json.dumps(data, indent=1).replace('"WRONG"', wrong))
    (path.parent / "LICENSE").write_text("Free for all.")
    return path.parent / "LICENSE"


def _any_key(random: np.random.Generator, data: dict[str, Any]) -> str:
    return sorted(data)[int(random.integers(len(data)))]


def _load(path: Path) -> str:
    return read_source(path.parent).encoder.digest


def _load_the_same(path: Path) -> None:
    """An archive has checksums: what is taken of it is what was written."""
    assert _load(path) in _sound_digests(), "a changed file was taken for another encoder"


@functools.cache
def _sound_digests() -> frozenset[str]:
    digests = set()
    for files in (_openclip_folder(), _timm_folder(pickled=True), *map(_pytorch_folder, _SPECS)):
        with tempfile.TemporaryDirectory() as folder:
            digests.add(_load(_write(files, Path(folder), "pytorch_model.bin")))
    return frozenset(digests)


def _target(
    name: str, make: Callable[[np.random.Generator, Path], Path], use: Callable[[Path], object] = _load
) -> Target:
    return Target(name, make, use, (CheckpointError, ArgumentError))


TARGETS = (
    _target("safetensors", _make_safetensors),
    _target("pth", _make_pytorch, _load_the_same),
    _target("config.json", _make_config),
    _target("preprocessor_config.json", _make_recipe),
    _target("predictor", _make_predictor, _load_the_same_predictor),
)
