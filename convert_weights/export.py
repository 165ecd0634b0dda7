"""The way back: an encoder as a Hugging Face folder, for peers and for round trips. Needs no torch.

Every table is read backwards, so a folder that was converted comes back bit for bit, under the names that it
had. What an encoder does not keep but `transformers` asks for (DINOv2's mask token) is written as zeros.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from convert_weights import (
    clip_huggingface,
    dinov2_huggingface,
    dinov3_huggingface,
    ijepa_huggingface,
    siglip_huggingface,
    vjepa2_huggingface,
)
from convert_weights.processors import to_preprocessor_config
from convert_weights.tables import export_tensors
from convert_weights.video_processors import VIDEO_FILE, to_video_processor_config
from jepa_jax.encoders import Encoder, EncoderSpec
from jepa_jax.errors import ArgumentError

FAMILIES = {
    family.FAMILY: family
    for family in (
        dinov2_huggingface,
        dinov3_huggingface,
        ijepa_huggingface,
        vjepa2_huggingface,
        clip_huggingface,
        siglip_huggingface,
    )
}
"""Family to the file that knows its Hugging Face format."""


def export(encoder: Encoder, output: Path) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``preprocessor_config.json`` to a new folder.

    The last is ``video_preprocessor_config.json`` where the encoder takes clips.

    Tensors keep their stored dtypes. The configuration names float32, to which `transformers` then widens
    kernels that are stored in bfloat16: exactly, and without rounding the rest.

    Raises:
        ArgumentError: the folder holds something already, or the family has no Hugging Face format.
    """
    family, config = _family(encoder.spec), to_huggingface_config(encoder.spec)
    if encoder.spec.vit.tubelet is None:
        processor_file = "preprocessor_config.json"
        processor = to_preprocessor_config(encoder.spec.preprocess, family.IMAGE_PROCESSOR)
    else:
        processor_file, processor = VIDEO_FILE, to_video_processor_config(encoder.spec.preprocess)
    if output.exists() and any(output.iterdir()):
        raise ArgumentError(f"output directory {output} is not empty; name a new one.")
    output.mkdir(parents=True, exist_ok=True)
    spec = encoder.spec.vit
    tensors = export_tensors(encoder.params, family.table(spec))
    tensors |= {name: np.zeros(shape, np.float32) for name, shape in family.unkept(spec).items()}
    _write_json(output / processor_file, processor)
    _write_json(output / "config.json", config)
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})


def to_huggingface_config(spec: EncoderSpec) -> dict[str, Any]:
    """The ``config.json`` of an encoder, from which `transformers` builds the same architecture."""
    frames = {} if spec.preprocess.frames is None else {"frames_per_clip": spec.preprocess.frames}
    return _family(spec).to_huggingface_config(spec.vit) | frames | {"dtype": "float32"}


def _family(spec: EncoderSpec) -> Any:
    if spec.family not in FAMILIES:
        raise ArgumentError(
            f"{spec.name!r} is of the family {spec.family!r}, which has no Hugging Face format; those of "
            f"{', '.join(FAMILIES)} have one."
        )
    return FAMILIES[spec.family]


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")
