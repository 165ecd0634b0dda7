"""CLIP as OpenCLIP saves it: ``open_clip_pytorch_model.bin``, ``open_clip_model.safetensors``, MetaCLIP's ``.pt``.

The image tower lies under ``visual.``. Training checkpoints hold it in ``state_dict``, beside the optimiser,
with data parallelism's ``module.`` before every name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import ViTSpec

ENTRY = "state_dict"

LEFT_OUT = {
    "token_embedding.": "the text tower",
    "positional_embedding": "the text tower's positions",
    "transformer.": "the text tower's blocks",
    "ln_final.": "the text tower's last LayerNorm",
    "text_projection": "the text tower's projection",
    "text.": "the text tower, of a kind of its own",
    "logit_scale": "the temperature between both towers",
    "logit_bias": "the bias between both towers",
}


def select(contents: Any, path: Path) -> Any:
    """The model's state dict: the file itself, or its entry ``state_dict`` if it is a training checkpoint."""
    del path
    return contents.get(ENTRY, contents) if isinstance(contents, dict) else contents


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its OpenCLIP name."""
    d = spec.width
    assert spec.projection is not None
    rows = [
        Row("class_token", ("visual.class_embedding",), (d,)),
        Row("position_embedding", ("visual.positional_embedding",), (1 + spec.native_grid**2, d)),
        *patch_projection("visual.conv1", spec),
        *layer_norm("pre_norm", "visual.ln_pre", d),
        *layer_norm("norm", "visual.ln_post", d),
        # A bare matrix, multiplied from the right as ours is: not transposed.
        Row("projection.kernel", ("visual.proj",), (d, spec.projection)),
    ]
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}", f"visual.transformer.resblocks.{i}")
    return rows


def _block(spec: ViTSpec, ours: str, theirs: str) -> list[Row]:
    d, hidden = spec.width, spec.mlp_width
    return [
        *layer_norm(f"{ours}.norm1", f"{theirs}.ln_1", d),
        # torch.nn.MultiheadAttention: query, key and value one below the other.
        Row(f"{ours}.attention.qkv.kernel", (f"{theirs}.attn.in_proj_weight",), (3 * d, d), "linear"),
        Row(f"{ours}.attention.qkv.bias", (f"{theirs}.attn.in_proj_bias",), (3 * d,)),
        *linear(f"{ours}.attention.out", [f"{theirs}.attn.out_proj"], d, d),
        *layer_norm(f"{ours}.norm2", f"{theirs}.ln_2", d),
        *linear(f"{ours}.mlp.fc1", [f"{theirs}.mlp.c_fc"], hidden, d),
        *linear(f"{ours}.mlp.fc2", [f"{theirs}.mlp.c_proj"], d, hidden),
    ]
