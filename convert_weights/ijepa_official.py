"""I-JEPA as its authors publish it: ``IN*-vit.*.pth.tar``, a whole training state.

Beside the ``target_encoder``, which is read, the file holds the ``encoder`` that the target follows, the
``predictor``, the optimiser's ``opt`` and ``scaler``, and counters. Data parallelism left a ``module.`` before
every name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import ViTSpec
from jepa_jax.errors import CheckpointError

ENTRY = "target_encoder"

LEFT_OUT: dict[str, str] = {}


def select(contents: Any, path: Path) -> dict[str, Any]:
    """The target encoder's state dict in a training state."""
    state = contents.get(ENTRY) if isinstance(contents, dict) else None
    if not isinstance(state, dict):
        found = ", ".join(map(str, list(contents)[:5])) if isinstance(contents, dict) else type(contents).__name__
        raise CheckpointError(
            f"{path} has no entry {ENTRY!r} (it holds {found}): it is no training state of I-JEPA. Get the official "
            ".pth.tar."
        )
    return state


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its official name."""
    d, hidden = spec.width, spec.mlp_width
    rows = [
        Row("position_embedding", ("pos_embed",), (1, spec.native_grid**2, d)),
        *patch_projection("patch_embed.proj", spec),
        *layer_norm("norm", "norm", d),
    ]
    for i in range(spec.depth):
        block = f"blocks.{i}"
        rows += [
            *layer_norm(f"{block}.norm1", f"{block}.norm1", d),
            *linear(f"{block}.attention.qkv", [f"{block}.attn.qkv"], 3 * d, d, bias=spec.qkv_bias),
            *linear(f"{block}.attention.out", [f"{block}.attn.proj"], d, d),
            *layer_norm(f"{block}.norm2", f"{block}.norm2", d),
            *linear(f"{block}.mlp.fc1", [f"{block}.mlp.fc1"], hidden, d),
            *linear(f"{block}.mlp.fc2", [f"{block}.mlp.fc2"], d, hidden),
        ]
    return rows
