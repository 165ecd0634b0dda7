"""From a source on disk to an encoder, and from there to a checkpoint."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from etils import epath

from convert_weights import (
    clip_huggingface,
    dinov2_huggingface,
    dinov2_official,
    ijepa_huggingface,
    ijepa_official,
    openai_clip,
    openclip,
)
from convert_weights.huggingface import Config, preprocess_spec
from convert_weights.readers import SafetensorsReader, TensorReader, TorchReader, file_digest, folder_reader
from convert_weights.tables import LeftOut, Row, check_source, import_params
from jepa_jax.encoders import ENCODERS, Encoder, EncoderSpec, ViTSpec, find_spec, restore_encoder, save_encoder
from jepa_jax.encoders.parameters import named_arrays
from jepa_jax.encoders.specs import KernelDtype
from jepa_jax.errors import ArgumentError, CheckpointError

SourceFormat = Literal["huggingface", "official", "openclip", "openai"]

HUGGING_FACE = {
    model_type: family
    for family in (dinov2_huggingface, ijepa_huggingface, clip_huggingface)
    for model_type in family.MODEL_TYPES
}
"""``model_type`` of a config.json to the file that knows it."""

STATE_DICTS = {
    "dinov2": {"official": dinov2_official},
    "ijepa": {"official": ijepa_official},
    "clip": {"openclip": openclip, "openai": openai_clip},
}
"""Family to the formats of its state dicts, each with the file that knows it; the first is the usual one."""

SAFETENSORS_SUFFIX = ".safetensors"
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar")


@dataclass(frozen=True)
class Source:
    """What was found, and compared with its table; the weights themselves are read when asked for.

    Attributes:
        spec: the encoder that it becomes.
        reader: its tensors.
        rows: the table that reads them.
        left_out: source tensors that are not needed, with the reasons.
        origin: format, files and their SHA-256, for the record.
    """

    spec: EncoderSpec
    reader: TensorReader
    rows: Sequence[Row]
    left_out: LeftOut
    origin: dict[str, Any]

    @property
    def encoder(self) -> Encoder:
        """The encoder, read anew each time: a source holds no weights, so that whoever drops the encoder frees them.

        Raises:
            CheckpointError: a value is not finite.
        """
        params = import_params(self.reader, self.rows, self.spec.vit, self.spec.kernel_dtype)
        encoder = Encoder(self.spec, params)
        for name, array in named_arrays(params):
            bad = int(np.sum(~np.isfinite(np.asarray(array))))
            if bad:
                raise CheckpointError(
                    f"{self.reader.path}: {bad} values of {name} are not finite; download the weights again."
                )
        return encoder


def read_source(
    path: Path,
    name: str | None = None,
    *,
    source_format: SourceFormat | None = None,
    kernel_dtype: KernelDtype = "float32",
) -> Source:
    """Open a Hugging Face folder or a state dict, and compare it with the table of its format.

    Args:
        path: a folder with ``config.json`` and weights, or a file.
        name: the encoder's name. A file has no description of its architecture in it, so there it is needed; a
            folder describes itself, and a known name is compared with the description.
        source_format: told, it is what the source must be. Otherwise a folder is ``huggingface``, and a file
            the format of its encoder's family; OpenAI's files carry numbers that no other has.
        kernel_dtype: what kernels are stored in. Everything else stays in float32.

    Raises:
        ArgumentError: the path, name or format cannot work; CheckpointError: the contents are not right.
    """
    if not path.exists():
        raise ArgumentError(f"source {path} does not exist.")
    if path.is_dir():
        if source_format not in (None, "huggingface"):
            raise ArgumentError(f"source {path} is a folder; the format {source_format!r} is one file. Pass the file.")
        return _read_hugging_face(path, name, kernel_dtype)
    if source_format == "huggingface":
        raise ArgumentError(f"source {path} is a file; pass the Hugging Face folder that holds its config.json too.")
    if path.suffix not in (*TORCH_SUFFIXES, SAFETENSORS_SUFFIX):
        raise ArgumentError(
            f"source {path} is neither a folder nor one of {', '.join((*TORCH_SUFFIXES, SAFETENSORS_SUFFIX))}."
        )
    if name is None:
        raise ArgumentError(
            f"source {path} does not say what it holds; name the encoder: --model with one of {', '.join(ENCODERS)}. "
            "A Hugging Face folder describes itself: pass the folder."
        )
    return _read_state_dict(path, find_spec(name), source_format, kernel_dtype)


def convert(source: Source, output: epath.PathLike) -> Encoder:
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


def _write(source: Source, output: epath.PathLike) -> str:
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
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} has no config.json: it is no Hugging Face model folder.")
    config = Config.read(folder / "config.json")
    model_type = config.text("model_type")
    if model_type not in HUGGING_FACE:
        raise CheckpointError(f"{config.path}: model_type is {model_type!r}; supported are {', '.join(HUGGING_FACE)}.")
    family = HUGGING_FACE[model_type]
    vit = family.vit_spec(config)
    reader = folder_reader(folder)
    known = _known_spec(vit, name, config.path)
    default = known.preprocess if known else family.default_recipe(vit)
    spec = EncoderSpec(
        name=name or (known.name if known else folder.resolve().name),
        family=family.FAMILY,
        vit=vit,
        preprocess=preprocess_spec(folder, default),
        hub_id=known.hub_id if known else None,
        licence=known.licence if known else None,
        kernel_dtype=kernel_dtype,
    )
    return _compared(spec, reader, family.table(vit), family.LEFT_OUT, f"huggingface:{model_type}")


def _known_spec(vit: ViTSpec, name: str | None, config: Path) -> EncoderSpec | None:
    """The known encoder that a configuration describes.

    Several encoders share an architecture (all CLIPs of one size do), and a configuration does not say which of
    them it is: then only a name tells, and without one the encoder stays unknown.
    """
    matching = {spec.name: spec for spec in ENCODERS.values() if _same_architecture(spec.vit, vit)}
    if name in ENCODERS and name not in matching:
        described = f", which is {' or '.join(map(repr, matching))}." if matching else ": no known architecture."
        raise ArgumentError(f"model {name!r} is not what {config} describes{described}")
    if name is not None:
        return matching.get(name)
    return next(iter(matching.values())) if len(matching) == 1 else None


def _same_architecture(known: ViTSpec, found: ViTSpec) -> bool:
    # How positions are resized depends on whose code reads the weights, not on them.
    return dataclasses.replace(known, position_resize=found.position_resize) == found


def _read_state_dict(path: Path, spec: EncoderSpec, told: SourceFormat | None, kernel_dtype: KernelDtype) -> Source:
    formats = STATE_DICTS[spec.family]
    if told is not None and told not in formats:
        raise ArgumentError(
            f"format {told!r} is none of {spec.name!r}; it comes as {' or '.join(map(repr, formats))}."
        )
    usual = next(iter(formats))
    if path.suffix == SAFETENSORS_SUFFIX:
        reader: TensorReader = SafetensorsReader(path)
    else:
        reader = TorchReader(path, formats[told or usual].select)
    source_format = told or (_detected(reader) if spec.family == "clip" else usual)
    module = formats[source_format]
    spec = dataclasses.replace(spec, kernel_dtype=kernel_dtype)
    return _compared(spec, reader, module.table(spec.vit), module.LEFT_OUT, f"{source_format}:{spec.family}")


def _detected(reader: TensorReader) -> SourceFormat:
    """Which of the two CLIP formats a file says that it is."""
    return "openai" if openai_clip.HEADER.issubset(reader.names()) else "openclip"


def _compared(
    spec: EncoderSpec, reader: TensorReader, rows: Sequence[Row], left_out: LeftOut, source_format: str
) -> Source:
    check_source(reader, rows, left_out)
    files = {file.name: file_digest(file) for file in reader.files()}
    return Source(spec, reader, rows, left_out, {"format": source_format, "sha256": files})
