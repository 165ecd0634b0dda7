"""Measures parity with PyTorch for docs/weights.md: ``python tests/reference/parity_table.py [NAME ...]``.

Published architectures at their true widths, with two blocks and random weights, on an image of 2 x 2 patches or a
clip of 2 x 2 x 2; those named, or all. Not a test; `test_parity_table.py` checks that what it wrote is current.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_families as families
import torch_reference as reference
import torch_vjepa2 as clips

import jepa_jax as jj
from convert_weights.convert import STATE_DICTS
from jepa_jax.encoders import ENCODERS

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks" / "results" / "parity.json"
PAGE = ROOT / "docs" / "weights.md"
SECTION = re.compile(r"(<!-- parity: .*? -->\n).*?(<!-- end of parity -->)", re.DOTALL)

MODELS = {
    "dinov2-small": "DINOv2 S/14",
    "dinov2-with-registers-giant": "DINOv2 g/14, registers",
    "dinov3-small": "DINOv3 S/16",
    "ijepa-vith14-1k": "I-JEPA H/14",
    "vjepa2-large": "V-JEPA 2 L/16",
    "metaclip-b32-400m": "CLIP, MetaCLIP B/32",
    "siglip-base-patch16-224": "SigLIP B/16",
}
"""One of each family, and each kind of layer among them."""


def main(names: list[str]) -> None:
    """Measure, record, and write the table."""
    known = json.loads(RECORD.read_text()) if names else {}
    record = {name: measure(name) if name in (names or MODELS) else known[name] for name in MODELS}
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    PAGE.write_text(SECTION.sub(lambda match: match[1] + table(record) + match[2], PAGE.read_text()))
    print(table(record))


def measure(name: str) -> dict[str, float]:
    """Errors of one model against PyTorch in float64: relative norms, and scores in nats."""
    model = two_blocks(name)
    image = np.random.default_rng(0).normal(0, 0.3, input_shape(name)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        encoder = jj.load_encoder(families.save_folder(model, Path(folder) / "model"))
    size = encoder.spec.embedding_size
    embedding, jacobian = expected(model, image)
    jacobian = jacobian.reshape(size, -1)
    values = np.linalg.svd(jacobian, compute_uv=False)
    errors: dict[str, float] = {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
            params = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), encoder.params)
            found = encoder.function(params, jnp.asarray(image[None], dtype))[0]
            rows = jj.jacobian(encoder, jnp.asarray(image[None], dtype))[0].reshape(size, -1)
            errors[f"embedding_{dtype}"] = relative_error(np.asarray(found), embedding)
            errors[f"jacobian_{dtype}"] = relative_error(np.asarray(rows), jacobian)
    double = jj.score(encoder, image[None], precision="float64")
    single = jj.score(encoder, image[None])
    listed = np.log(np.maximum(values, 1e-6)).sum()
    structural = np.log(values[: double.log_volume_rank]).sum()
    errors["listing_score_float64_nats"] = abs(float(double.listing_score[0]) - float(listed))
    errors["score_float32_nats"] = abs(float(single.score[0]) - float(structural))
    return errors


def input_shape(name: str) -> tuple[int, ...]:
    """Of two patches along each axis: [H, W, 3], or [T, H, W, 3]."""
    vit = ENCODERS[name].vit
    times = () if vit.tubelet is None else (2 * vit.tubelet,)
    return *times, 2 * vit.patch_size, 2 * vit.patch_size, 3


def expected(model: Any, example: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PyTorch's embedding [K] and Jacobian [K, *input] of an image or a clip, in float64."""
    if example.ndim == 4:
        return clips.stages(model, example[None])[0][0], clips.jacobian(model, example)
    model = model.double()
    with reference.float64_interpolation():
        embedding = reference.torch_embedding(model, example[None], torch.float64)[0]
        return embedding, reference.torch_jacobian(model, example, torch.float64)


def two_blocks(name: str) -> Any:
    """A published architecture with two blocks, as a random PyTorch model."""
    vit = ENCODERS[name].vit
    if ENCODERS[name].family == "dinov2":
        return reference.random_dinov2(
            vit.width,
            vit.heads,
            2,
            image_size=4 * vit.patch_size,
            registers=bool(vit.register_tokens),
            swiglu=vit.activation == "swiglu",
        )
    if vit.tubelet is not None:  # whose positions are those of clips of its own size
        frames, side, _, _ = input_shape(name)
        ratio = vit.mlp_width / vit.width
        return clips.random_vjepa2(
            vit.width, vit.heads, 2, mlp_ratio=ratio, patch_size=vit.patch_size, image_size=side, frames=frames
        )
    shape: dict[str, Any] = {
        "width": vit.width,
        "heads": vit.heads,
        "depth": 2,
        "mlp_width": vit.mlp_width,
        "patch_size": vit.patch_size,
        "image_size": 4 * vit.patch_size,
    }
    if vit.rotary_base is not None:
        biases = vit.qkv_bias, vit.key_bias
        return families.random_dinov3(**shape, gated=vit.activation == "swiglu", biases=biases)
    if vit.pooling == "attention":
        return families.random_siglip(**shape)
    if vit.projection is None:
        return families.random_ijepa(**shape)
    return families.random_clip(**shape, projection=vit.projection, activation=vit.activation)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the error over the norm."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def source_formats(name: str) -> str:
    """Every format that the model can be read from."""
    return ", ".join(["Hugging Face", *STATE_DICTS.get(ENCODERS[name].family, ())])


def table(record: dict[str, dict[str, float]]) -> str:
    """The README's table."""
    lines = [
        "| model | source formats | embedding, float32 / 64 | Jacobian, float32 / 64 "
        "| listing, float64 | score, float32 |",
        "|---|---|---|---|---|---|",
    ]
    for name, e in record.items():
        lines.append(
            f"| {MODELS[name]} | {source_formats(name)} "
            f"| {e['embedding_float32']:.0e} / {e['embedding_float64']:.0e} "
            f"| {e['jacobian_float32']:.0e} / {e['jacobian_float64']:.0e} "
            f"| {e['listing_score_float64_nats']:.0e} nats | {e['score_float32_nats']:.0e} nats |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
