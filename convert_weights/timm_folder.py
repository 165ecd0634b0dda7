"""Vision transformers as timm saves them: its hub folders, with ``model.safetensors`` or ``pytorch_model.bin``.

The embedding is what timm gives with ``num_classes=0``: pooled and LayerNormed as the configuration says, without the
classifier. Of its CLIP towers that is the class token before the projection, which timm has as a classifier; the
folders of `transformers` and OpenCLIP have the projected one.
"""

from __future__ import annotations

from pathlib import Path

from convert_weights import timm_config
from convert_weights.config import Config
from convert_weights.folders import weight_files
from convert_weights.readers import TensorReader, unwrapped
from convert_weights.source import Source, check_depth, compared, described_spec, known_spec, open_file
from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import ViTSpec
from jepa_jax.encoders.specs import KernelDtype
from jepa_jax.errors import CheckpointError

FAMILY = "timm"
LEFT_OUT = {"head.": "the classifier"}


def read_timm(config: Config, folder: Path, name: str | None, kernel_dtype: KernelDtype) -> Source:
    """A folder of timm's, by its ``config.json``."""
    vit = timm_config.vit_spec(config)
    files = weight_files(folder)
    if len(files) != 1 or any(tensors is not None for tensors in files.values()):
        raise CheckpointError(f"{folder} holds shards; timm writes one file: model.safetensors or pytorch_model.bin.")
    reader = unwrapped(open_file(next(iter(files))))
    check_depth(vit, reader, f"{config.path}: depth")
    known = known_spec(vit, name, config.path) if name else None  # which of several weights it is, only a name tells
    licence = config.section("pretrained_cfg").get("license")
    spec = described_spec(
        config.path,
        name=name or folder.resolve().name,
        family=FAMILY,
        vit=vit,
        preprocess=timm_config.recipe(config, vit.native_image_size),
        hub_id=known.hub_id if known else None,
        licence=licence if isinstance(licence, str) and licence.isprintable() else None,
        kernel_dtype=kernel_dtype,
    )
    return compared(spec, reader, table(vit, _norm(vit, reader)), LEFT_OUT, "timm:vit", f"{config.path.name} of timm")


def _norm(vit: ViTSpec, reader: TensorReader) -> str:
    """The name of the final norm. Before a class token is taken or behind it, it is the same: there both are read."""
    if vit.pooling == "class_token" and "norm.weight" not in set(reader.names()):
        return "fc_norm"
    return "fc_norm" if vit.norm_after_pooling else "norm"


def table(spec: ViTSpec, norm: str = "norm") -> list[Row]:
    """Every parameter, by timm's name."""
    d = spec.width
    rows = [
        Row("position_embedding", ("pos_embed",), (1, spec.class_positions + spec.native_grid**2, d)),
        *patch_projection("patch_embed.proj", spec),
        *layer_norm("norm", norm, d),
    ]
    if spec.class_token:
        rows.append(Row("class_token", ("cls_token",), (1, 1, d)))
    if spec.register_tokens:
        rows.append(Row("register_tokens", ("reg_token",), (1, spec.register_tokens, d)))
    if spec.pre_norm:
        rows += layer_norm("pre_norm", "norm_pre", d)
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}")
    return rows


def _block(spec: ViTSpec, block: str) -> list[Row]:
    d, hidden = spec.width, spec.mlp_width
    rows = [
        *layer_norm(f"{block}.norm1", f"{block}.norm1", d),
        *linear(f"{block}.attention.qkv", [f"{block}.attn.qkv"], 3 * d, d, bias=spec.qkv_bias),
        *linear(f"{block}.attention.out", [f"{block}.attn.proj"], d, d),
        *layer_norm(f"{block}.norm2", f"{block}.norm2", d),
    ]
    if spec.layer_scale:
        rows.append(Row(f"{block}.layer_scale1", (f"{block}.ls1.gamma",), (d,)))
        rows.append(Row(f"{block}.layer_scale2", (f"{block}.ls2.gamma",), (d,)))
    # Gated units are timm's SwiGLUPacked: gate and value one below the other in one layer.
    gated = spec.activation == "swiglu"
    into, out = ("gate_up", "down") if gated else ("fc1", "fc2")
    rows += linear(f"{block}.mlp.{into}", [f"{block}.mlp.fc1"], 2 * hidden if gated else hidden, d)
    rows += linear(f"{block}.mlp.{out}", [f"{block}.mlp.fc2"], d, hidden)
    return rows
