"""OpenCLIP's weights by their own configuration: a folder, or a file that it lies beside."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from convert_weights import openclip, openclip_config
from convert_weights.config import Config
from convert_weights.folders import OPENCLIP_CONFIG, weight_files
from convert_weights.readers import TensorReader, unwrapped
from convert_weights.safetensors_file import SafetensorsReader
from convert_weights.source import SAFETENSORS_SUFFIX, Source, check_depth, compared, described_spec, same_architecture
from convert_weights.torch_file import TorchReader
from jepa_jax.encoders import ENCODERS, EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.encoders.specs import KernelDtype
from jepa_jax.errors import ArgumentError


def read_openclip_folder(folder: Path, name: str | None, kernel_dtype: KernelDtype) -> Source:
    """A folder that OpenCLIP wrote, or its repository."""
    (file,) = weight_files(folder)
    reader = TorchReader(file, openclip.select) if file.suffix != SAFETENSORS_SUFFIX else SafetensorsReader(file)
    return read_openclip(unwrapped(reader), folder / OPENCLIP_CONFIG, name, kernel_dtype)


def read_openclip(reader: TensorReader, described_by: Path, name: str | None, kernel_dtype: KernelDtype) -> Source:
    """OpenCLIP's weights as their own configuration describes them."""
    config = Config.read(described_by)
    vit = openclip_config.vit_spec(config)
    preprocess = openclip_config.recipe(config, vit.native_image_size)
    check_depth(vit, reader, f"{described_by}: layers")
    matching = [
        spec
        for spec in ENCODERS.values()
        if spec.family == "clip" and same_architecture(spec.vit, vit) and spec.preprocess == preprocess
    ]
    if name in ENCODERS:
        known = ENCODERS[name]
        _refuse_contradiction(known, vit, preprocess, described_by)
    else:
        known = matching[0] if name is None and len(matching) == 1 else None
    spec = described_spec(
        described_by,
        name=name or (known.name if known else described_by.resolve().parent.name),
        family="clip",
        vit=vit if known is None else dataclasses.replace(vit, position_resize=known.vit.position_resize),
        preprocess=preprocess,
        hub_id=known.hub_id if known else None,
        licence=known.licence if known else None,
        kernel_dtype=kernel_dtype,
    )
    return compared(spec, reader, openclip.table(vit), openclip.LEFT_OUT, "openclip:clip", described_by.name)


def _refuse_contradiction(known: EncoderSpec, vit: ViTSpec, preprocess: PreprocessSpec, described_by: Path) -> None:
    if known.family != "clip":
        raise ArgumentError(
            f"model {known.name!r} is of the family {known.family!r}, not what {described_by} describes."
        )
    told = {**dataclasses.asdict(known.vit), **dataclasses.asdict(known.preprocess)}
    found = {**dataclasses.asdict(vit), **dataclasses.asdict(preprocess)}
    other = [field for field in found if field != "position_resize" and told[field] != found[field]]
    if other:
        differences = ", ".join(f"{field} {told[field]} there and {found[field]} here" for field in other)
        raise ArgumentError(
            f"model {known.name!r} is not what {described_by} describes: {differences}. Leave --model out, and the "
            "weights' own configuration decides; or name the encoder that they are."
        )
