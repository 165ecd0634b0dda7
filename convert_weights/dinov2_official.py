"""DINOv2 as its authors publish it: ``dinov2_vit*14[_reg4]_pretrain.pth``, a flat state dict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import ViTSpec

LEFT_OUT = {"mask_token": "used in pretraining alone"}


def select(contents: Any, path: Path) -> Any:
    """The encoder's state dict, which is the whole file."""
    del path
    return contents


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its official name."""
    d = spec.width
    rows = [
        Row("class_token", ("cls_token",), (1, 1, d)),
        Row("position_embedding", ("pos_embed",), (1, 1 + spec.native_grid**2, d)),
        *patch_projection("patch_embed.proj", spec),
        *layer_norm("norm", "norm", d),
    ]
    if spec.register_tokens:
        rows.append(Row("register_tokens", ("register_tokens",), (1, spec.register_tokens, d)))
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}")
    return rows


def _block(spec: ViTSpec, block: str) -> list[Row]:
    d, hidden = spec.width, spec.mlp_width
    rows = [
        *layer_norm(f"{block}.norm1", f"{block}.norm1", d),
        *linear(f"{block}.attention.qkv", [f"{block}.attn.qkv"], 3 * d, d, bias=spec.qkv_bias),
        *linear(f"{block}.attention.out", [f"{block}.attn.proj"], d, d),
        Row(f"{block}.layer_scale1", (f"{block}.ls1.gamma",), (d,)),
        *layer_norm(f"{block}.norm2", f"{block}.norm2", d),
        Row(f"{block}.layer_scale2", (f"{block}.ls2.gamma",), (d,)),
    ]
    if spec.activation == "swiglu":
        rows += linear(f"{block}.mlp.gate_up", [f"{block}.mlp.w12"], 2 * hidden, d)
        rows += linear(f"{block}.mlp.down", [f"{block}.mlp.w3"], d, hidden)
    else:
        rows += linear(f"{block}.mlp.fc1", [f"{block}.mlp.fc1"], hidden, d)
        rows += linear(f"{block}.mlp.fc2", [f"{block}.mlp.fc2"], d, hidden)
    return rows
