"""DINOv3 as its authors publish it: ``dinov3_vit*16*_pretrain_*.pth``, a flat state dict.

Beside parameters it has two kinds of buffers. A mask is multiplied with the bias of queries, keys and values, and is
zero for keys. And the periods of the rotary embedding, from which its angles are computed: those of the formula, or
the same in bfloat16.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from convert_weights.readers import TensorReader
from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import ViTSpec
from jepa_jax.errors import CheckpointError
from jepa_jax.layers.rotary import rotary_periods

PERIODS = "rope_embed.periods"
LEFT_OUT = {
    "mask_token": "used in pretraining alone",
    "local_cls_norm.": "used in pretraining alone, on small crops",
    PERIODS: "the periods of the rotary embedding, which are computed",
}

# A power in float32, by any library, and float32's rounding.
_NEAR = 1e-5


def select(contents: Any, path: Path) -> Any:
    """The encoder's state dict, which is the whole file."""
    del path
    return contents


def examined(spec: ViTSpec, reader: TensorReader) -> ViTSpec:
    """The architecture with periods as a source has them.

    Raises:
        CheckpointError: they are none of this encoder.
    """
    if PERIODS not in reader.names():
        return spec
    head_width, base = spec.width // spec.heads, spec.rotary_base
    assert base is not None
    if reader.describe(PERIODS).shape == (head_width // 4,):
        found = reader.read(PERIODS).astype(np.float64)
        if np.allclose(found, rotary_periods(head_width, base), rtol=_NEAR, atol=0):
            return spec
        if np.array_equal(found, rotary_periods(head_width, base, "bfloat16")):
            return dataclasses.replace(spec, rotary_periods="bfloat16")
    raise CheckpointError(
        f"{reader.path}: tensor {PERIODS} does not hold the {head_width // 4} periods of a rotary embedding of base "
        f"{base:g}, nor these in bfloat16; is it another model?"
    )


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its official name (registers are storage tokens there)."""
    d = spec.width
    rows = [
        Row("class_token", ("cls_token",), (1, 1, d)),
        *patch_projection("patch_embed.proj", spec),
        *layer_norm("norm", "norm", d),
    ]
    if spec.register_tokens:
        rows.append(Row("register_tokens", ("storage_tokens",), (1, spec.register_tokens, d)))
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}")
    return rows


def _block(spec: ViTSpec, block: str) -> list[Row]:
    d, hidden = spec.width, spec.mlp_width
    qkv = f"{block}.attn.qkv"
    rows = [
        *layer_norm(f"{block}.norm1", f"{block}.norm1", d),
        *linear(f"{block}.attention.qkv", [qkv], 3 * d, d, bias=spec.qkv_bias and spec.key_bias),
        *linear(f"{block}.attention.out", [f"{block}.attn.proj"], d, d),
        Row(f"{block}.layer_scale1", (f"{block}.ls1.gamma",), (d,)),
        *layer_norm(f"{block}.norm2", f"{block}.norm2", d),
        Row(f"{block}.layer_scale2", (f"{block}.ls2.gamma",), (d,)),
    ]
    if spec.qkv_bias and not spec.key_bias:
        sources = (f"{qkv}.bias", f"{qkv}.bias_mask")
        rows.append(Row(f"{block}.attention.query_value_bias", sources, (3 * d,), "masked"))
    if spec.activation == "swiglu":
        rows += linear(f"{block}.mlp.gate_up", [f"{block}.mlp.w1", f"{block}.mlp.w2"], hidden, d)
        rows += linear(f"{block}.mlp.down", [f"{block}.mlp.w3"], d, hidden)
    else:
        rows += linear(f"{block}.mlp.fc1", [f"{block}.mlp.fc1"], hidden, d)
        rows += linear(f"{block}.mlp.fc2", [f"{block}.mlp.fc2"], d, hidden)
    return rows
