"""I-JEPA as `transformers` saves it: ``IJepaModel`` folders."""

from __future__ import annotations

from typing import Any

from convert_weights.config import Config
from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import PreprocessSpec, ViTSpec
from jepa_jax.encoders.ijepa import ijepa_recipe

FAMILY = "ijepa"
MODEL_TYPES = ("ijepa",)
IMAGE_PROCESSOR = "BitImageProcessor"

LEFT_OUT: dict[str, str] = {}


def vit_spec(config: Config) -> ViTSpec:
    """The architecture that a ``config.json`` describes; where a field is absent, ``IJepaConfig``'s default."""
    config.require("hidden_act", "gelu", default="gelu")
    config.require("num_channels", 3, default=3)
    return ViTSpec(
        width=config.integer("hidden_size", default=768),
        depth=config.integer("num_hidden_layers", default=12),
        heads=config.integer("num_attention_heads", default=12),
        patch_size=config.integer("patch_size", default=16),
        native_image_size=config.integer("image_size", default=224),
        mlp_width=config.integer("intermediate_size", default=3072),
        norm_eps=config.epsilon("layer_norm_eps", default=1e-12),
        class_token=False,
        qkv_bias=config.flag("qkv_bias", default=True),
        pooling="mean_patches",
        position_resize="bicubic",
    )


def to_huggingface_config(spec: ViTSpec) -> dict[str, Any]:
    """The ``config.json`` that describes an architecture: the inverse of `vit_spec`."""
    return {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.mlp_width,
        "hidden_act": "gelu",
        "layer_norm_eps": spec.norm_eps,
        "image_size": spec.native_image_size,
        "patch_size": spec.patch_size,
        "num_channels": 3,
        "qkv_bias": spec.qkv_bias,
    }


def default_recipe(spec: ViTSpec) -> PreprocessSpec:
    """Preprocessing where the folder does not say: the authors' own, at the native size."""
    return ijepa_recipe(spec.native_image_size)


def unkept(spec: ViTSpec) -> dict[str, tuple[int, ...]]:
    """Tensors that a folder must have and an encoder does not: none."""
    del spec
    return {}


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its Hugging Face name."""
    d = spec.width
    rows = [
        Row("position_embedding", ("embeddings.position_embeddings",), (1, spec.native_grid**2, d)),
        *patch_projection("embeddings.patch_embeddings.projection", spec),
        *layer_norm("norm", "layernorm", d),
    ]
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}", f"encoder.layer.{i}")
    return rows


def _block(spec: ViTSpec, ours: str, theirs: str) -> list[Row]:
    d, hidden = spec.width, spec.mlp_width
    qkv = [f"{theirs}.attention.attention.{part}" for part in ("query", "key", "value")]
    return [
        *layer_norm(f"{ours}.norm1", f"{theirs}.layernorm_before", d),
        *linear(f"{ours}.attention.qkv", qkv, d, d, bias=spec.qkv_bias),
        *linear(f"{ours}.attention.out", [f"{theirs}.attention.output.dense"], d, d),
        *layer_norm(f"{ours}.norm2", f"{theirs}.layernorm_after", d),
        *linear(f"{ours}.mlp.fc1", [f"{theirs}.intermediate.dense"], hidden, d),
        *linear(f"{ours}.mlp.fc2", [f"{theirs}.output.dense"], d, hidden),
    ]
