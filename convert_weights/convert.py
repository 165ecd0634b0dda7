"""From a source on disk to an encoder, and from there to a checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from convert_weights import dinov2_huggingface, dinov2_official
from convert_weights.huggingface import Config, preprocess_spec
from convert_weights.readers import TensorReader, TorchReader, file_digest, folder_reader
from convert_weights.tables import Row, import_params
from jepa_jax.encoders import ENCODERS, Encoder, EncoderSpec, find_spec, restore_encoder, save_encoder
from jepa_jax.errors import ArgumentError, CheckpointError

HUGGING_FACE = dict.fromkeys(dinov2_huggingface.MODEL_TYPES, dinov2_huggingface)
"""``model_type`` of a config.json to the file that knows it."""

OFFICIAL = {"dinov2": dinov2_official}
"""Family to the file that knows its official state dicts."""

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar")


@dataclass(frozen=True)
class Source:
    """What was read.

    Attributes:
        encoder: the encoder.
        rows: the table that was used.
        left_out: source tensors that were not needed, with the reasons.
        origin: format, files and their SHA-256, for the record.
    """

    encoder: Encoder
    rows: list[Row]
    left_out: dict[str, str]
    origin: dict[str, Any]


def read_source(path: Path, name: str | None = None) -> Source:
    """Read an encoder from a Hugging Face folder or an official state dict.

    Args:
        path: a folder with ``config.json`` and safetensors, or a ``.pth`` file.
        name: the encoder's name. An official file has no description in it, so there it is needed; a
            folder describes itself, and a name is compared with the description.

    Raises:
        ArgumentError: the path or the name cannot work; CheckpointError: the contents are not right.
    """
    if path.is_dir():
        return _read_hugging_face(path, name)
    if not path.exists():
        raise ArgumentError(f"source {path} does not exist.")
    if path.suffix not in TORCH_SUFFIXES:
        raise ArgumentError(
            f"source {path} is neither a folder nor one of {', '.join(TORCH_SUFFIXES)}; for safetensors pass "
            "the folder that holds its config.json too."
        )
    if name is None:
        raise ArgumentError(
            f"source {path} does not say what it holds; name the encoder: --model with one of {', '.join(ENCODERS)}."
        )
    return _read_official(path, find_spec(name))


def convert(source: Source, output: epath.PathLike) -> Encoder:
    """Write a source as a checkpoint and read it back, comparing digests.

    Returns:
        The encoder as it was read back.
    """
    save_encoder(source.encoder, output, source.origin)
    restored = restore_encoder(output)
    if restored.digest != source.encoder.digest:
        raise CheckpointError(f"{output} does not read back as it was written; check the disk.")
    return restored


def _read_hugging_face(folder: Path, name: str | None) -> Source:
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} has no config.json: it is no Hugging Face model folder.")
    config = Config(folder / "config.json")
    model_type = config.text("model_type")
    if model_type not in HUGGING_FACE:
        raise CheckpointError(f"{config.path}: model_type is {model_type!r}; supported are {', '.join(HUGGING_FACE)}.")
    family = HUGGING_FACE[model_type]
    vit = family.vit_spec(config)
    default = family.default_spec()
    known = _matching_spec(vit)
    if name in ENCODERS and (known is None or known.name != name):
        raise ArgumentError(
            f"model {name!r} is not what {config.path} describes"
            + (f", which is {known.name!r}." if known else ": an architecture without a known name.")
        )
    spec = EncoderSpec(
        name=name or (known.name if known else folder.resolve().name),
        family=default.family,
        vit=vit,
        preprocess=preprocess_spec(folder, default.preprocess),
        hub_id=known.hub_id if known else None,
        licence=known.licence if known else None,
    )
    return _assemble(spec, folder_reader(folder), family.table(vit), family.LEFT_OUT, f"huggingface:{model_type}")


def _read_official(path: Path, spec: EncoderSpec) -> Source:
    family = OFFICIAL[spec.family]
    return _assemble(spec, TorchReader(path), family.table(spec.vit), family.LEFT_OUT, f"official:{spec.family}")


def _assemble(
    spec: EncoderSpec, reader: TensorReader, rows: list[Row], left_out: dict[str, str], source_format: str
) -> Source:
    encoder = Encoder(spec, import_params(reader, rows, spec.vit, left_out))
    files = {file.name: file_digest(file) for file in reader.files()}
    return Source(encoder, rows, left_out, {"format": source_format, "sha256": files})


def _matching_spec(vit: Any) -> EncoderSpec | None:
    """The known encoder of this architecture; how positions are resized depends on the source, not on it."""
    for spec in ENCODERS.values():
        if dataclasses.replace(spec.vit, position_resize=vit.position_resize) == vit:
            return spec
    return None
