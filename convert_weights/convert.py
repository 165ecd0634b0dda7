"""From a source on disk to an encoder, and from there to a checkpoint."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import sys
from pathlib import Path
from typing import Any, Literal

from convert_weights import (
    clip_huggingface,
    dinov2_huggingface,
    dinov2_official,
    dinov3_huggingface,
    dinov3_official,
    ijepa_huggingface,
    ijepa_official,
    openai_clip,
    openclip,
    siglip_huggingface,
    timm_file,
    vjepa2_huggingface,
)
from convert_weights.backbones import bare_backbone, with_file_names
from convert_weights.config import Config, shown
from convert_weights.folders import CONFIG, OPENCLIP_CONFIG, WeightFiles, description, weight_files
from convert_weights.openclip_source import read_openclip, read_openclip_folder
from convert_weights.processors import folder_recipe
from convert_weights.readers import Shards, TensorReader, unwrapped
from convert_weights.safetensors_file import SafetensorsReader
from convert_weights.source import (
    SAFETENSORS_SUFFIX,
    Source,
    check_depth,
    compared,
    described_spec,
    known_spec,
    open_file,
)
from convert_weights.timm_folder import read_timm
from convert_weights.torch_file import TorchReader
from convert_weights.video_processors import folder_video_recipe
from jepa_jax.encoders import (
    ENCODERS,
    Encoder,
    EncoderSpec,
    ViTSpec,
    find_spec,
    restore_encoder,
    save_encoder,
)
from jepa_jax.encoders.specs import KernelDtype
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.paths import PathLike

SourceFormat = Literal["huggingface", "official", "openclip", "openai"]

HUGGING_FACE = {
    model_type: family
    for family in (
        dinov2_huggingface,
        dinov3_huggingface,
        ijepa_huggingface,
        vjepa2_huggingface,
        clip_huggingface,
        siglip_huggingface,
    )
    for model_type in family.MODEL_TYPES
}
"""``model_type`` of a config.json to the file that knows it."""

STATE_DICTS = {
    "dinov2": {"official": dinov2_official},
    "dinov3": {"official": dinov3_official},
    "ijepa": {"official": ijepa_official},
    "clip": {"openclip": openclip, "openai": openai_clip},
    "timm": {"official": timm_file},
}
"""Family to the formats of its state dicts, each with the file that knows it; the first is the usual one."""

EXAMINED = {module: module.examined for module in (dinov3_huggingface, dinov3_official)}
"""Formats in which tensors that an encoder does not keep tell of its architecture, or could contradict it."""

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar")


def read_source(
    path: Path,
    name: str | None = None,
    *,
    source_format: SourceFormat | None = None,
    kernel_dtype: KernelDtype = "float32",
) -> Source:
    """Open a Hugging Face folder or a state dict, and compare it with the table of its format.

    Args:
        path: a folder with ``config.json`` or ``open_clip_config.json`` and weights (see `folders`), or a file.
        name: the encoder's name. A file has no description of its architecture in it, so there it is needed; a
            folder describes itself, as does an OpenCLIP file with its ``open_clip_config.json`` beside it: there a
            known name is compared with the description.
        source_format: told, it is what the source must be. Otherwise a folder is ``huggingface`` or, where it has
            no ``config.json``, ``openclip``; and a file the format of its encoder's family; OpenAI's files carry
            numbers that no other has.
        kernel_dtype: what kernels are stored in. Everything else stays in float32.

    Raises:
        ArgumentError: the path, name or format cannot work; CheckpointError: the contents are not right.
    """
    if not path.exists():
        raise ArgumentError(f"source {path} does not exist.")
    if path.is_dir():
        if source_format == "openclip" and (path / OPENCLIP_CONFIG).exists():
            return read_openclip_folder(path, name, kernel_dtype)
        if source_format not in (None, "huggingface"):
            raise ArgumentError(f"source {path} is a folder; the format {source_format!r} is one file. Pass the file.")
        if source_format is None and description(path) == OPENCLIP_CONFIG:
            return read_openclip_folder(path, name, kernel_dtype)
        return _read_hugging_face(path, name, kernel_dtype)
    if source_format == "huggingface":
        raise ArgumentError(f"source {path} is a file; pass the Hugging Face folder that holds its config.json too.")
    if path.suffix not in (*TORCH_SUFFIXES, SAFETENSORS_SUFFIX):
        raise ArgumentError(
            f"source {path} is neither a folder nor one of {', '.join((*TORCH_SUFFIXES, SAFETENSORS_SUFFIX))}."
        )
    if name is None and not (path.parent / OPENCLIP_CONFIG).exists():
        raise ArgumentError(
            f"source {path} does not say what it holds; name the encoder: --model with one of {', '.join(ENCODERS)}. "
            "A Hugging Face folder describes itself: pass the folder."
        )
    return _read_state_dict(path, find_spec(name) if name else None, source_format, kernel_dtype)


def convert(source: Source, output: PathLike) -> Encoder:
    """Write a source as a checkpoint and read it back, comparing digests.

    Never holds the weights twice: what was read is dropped before it is read back.

    Returns:
        The encoder as it was read back.
    """
    digest = _write(source, output)
    _release_memory()
    restored = restore_encoder(output)
    if restored.digest != digest:
        raise CheckpointError(f"{output} does not read back as it was written; check the disk.")
    return restored


def _write(source: Source, output: PathLike) -> str:
    encoder = source.encoder
    _release_memory()
    save_encoder(encoder, output, source.origin)
    return encoder.digest


def _release_memory() -> None:
    """Give what was dropped back to the system; left alone, a conversion takes three times the weights.

    A finished save still refers to its arrays, in cycles; and the GNU allocator keeps what is freed for the
    thread that freed it, while Orbax allocates in threads of its own.
    """
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def _read_hugging_face(folder: Path, name: str | None, kernel_dtype: KernelDtype) -> Source:
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} has no {CONFIG}: it is no Hugging Face model folder.")
    config = Config.read(folder / CONFIG)
    if "model_type" not in config and "architecture" in config:
        return read_timm(config, folder, name, kernel_dtype)
    model_type = config.text("model_type")
    if model_type in siglip_huggingface.NOT_READ:
        raise CheckpointError(f"{config.path}: {model_type} is {siglip_huggingface.NOT_READ[model_type]}.")
    if model_type not in HUGGING_FACE:
        raise CheckpointError(
            f"{config.path}: model_type is {shown(model_type)}; supported are {', '.join(HUGGING_FACE)}."
        )
    if "quantization_config" in config:
        raise CheckpointError(f"{config.path} has a quantization_config; convert weights that were not quantised.")
    family = HUGGING_FACE[model_type]
    try:
        vit = family.vit_spec(config)
    except ArgumentError as error:
        raise CheckpointError(f"{config.path}: {error}") from error
    reader = unwrapped(_open(folder, weight_files(folder)))
    check_depth(vit, reader, f"{config.path}: num_hidden_layers")
    rows = family.table(vit)
    reader, head = bare_backbone(with_file_names(reader, family.FAMILY), rows, config, model_type)
    vit = _examined(family, vit, reader)
    known = known_spec(vit, name, config.path)
    default = known.preprocess if known else family.default_recipe(vit)
    find_recipe = folder_recipe if vit.tubelet is None else folder_video_recipe
    recipe = find_recipe(folder, config, default)
    spec = described_spec(
        config.path,
        name=name or (known.name if known else folder.resolve().name),
        family=family.FAMILY,
        vit=vit,
        preprocess=recipe.preprocess,
        hub_id=known.hub_id if known else None,
        licence=known.licence if known else None,
        kernel_dtype=kernel_dtype,
    )
    return compared(spec, reader, rows, family.LEFT_OUT | head, f"huggingface:{model_type}", recipe.origin)


def _examined(module: Any, vit: ViTSpec, reader: TensorReader) -> ViTSpec:
    return EXAMINED[module](vit, reader) if module in EXAMINED else vit


def _open(folder: Path, files: WeightFiles) -> TensorReader:
    shards = [(open_file(file), tensors) for file, tensors in files.items()]
    if len(shards) == 1 and shards[0][1] is None:
        return shards[0][0]
    return Shards(folder, [(reader, tensors or frozenset()) for reader, tensors in shards])


def _read_state_dict(
    path: Path, spec: EncoderSpec | None, told: SourceFormat | None, kernel_dtype: KernelDtype
) -> Source:
    """A file, by the spec of its encoder; None where a configuration of OpenCLIP lies beside it."""
    formats = STATE_DICTS.get(spec.family, {}) if spec else STATE_DICTS["clip"]
    if spec and not formats:
        if spec.hub_id:
            raise ArgumentError(f"{spec.name!r} is read from the folder of its repository, {spec.hub_id}; pass that.")
        raise ArgumentError(f"{spec.name!r} is shipped with this package, and comes in no other format.")
    if told is not None and told not in formats:
        whose = f"{spec.name!r}" if spec else f"{path}, beside which an {OPENCLIP_CONFIG} lies"
        raise ArgumentError(f"format {told!r} is none of {whose}; it comes as {' or '.join(map(repr, formats))}.")
    usual = next(iter(formats))
    if path.suffix == SAFETENSORS_SUFFIX:
        reader: TensorReader = SafetensorsReader(path)
    else:
        reader = TorchReader(path, formats[told or usual].select)
    reader = unwrapped(reader)
    source_format = told or (_detected(reader) if formats is STATE_DICTS["clip"] else usual)
    described_by = path.parent / OPENCLIP_CONFIG
    if source_format == "openclip" and described_by.exists():
        return read_openclip(reader, described_by, spec.name if spec else None, kernel_dtype)
    if spec is None:
        raise ArgumentError(
            f"source {path} is no file of OpenCLIP; name the encoder: --model with one of {', '.join(ENCODERS)}."
        )
    module = formats[source_format]
    vit = _examined(module, spec.vit, reader)
    spec = dataclasses.replace(spec, vit=vit, kernel_dtype=kernel_dtype)
    recipe = f"that of {spec.name}: a file has none"
    return compared(spec, reader, module.table(spec.vit), module.LEFT_OUT, f"{source_format}:{spec.family}", recipe)


def _detected(reader: TensorReader) -> SourceFormat:
    """Which of the two CLIP formats a file says that it is."""
    return "openai" if openai_clip.HEADER.issubset(reader.names()) else "openclip"
