"""DINOv3 as `transformers` saves it: ``DINOv3ViTModel`` folders.

Positions are computed, not stored. Queries and values have biases of their own, and keys as a rule none.
"""

from __future__ import annotations

from typing import Any

from convert_weights.config import Config
from convert_weights.readers import TensorReader
from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import PreprocessSpec, ViTSpec
from jepa_jax.encoders.dinov3 import dinov3_recipe
from jepa_jax.encoders.specs import MAX_ROTARY_BASE
from jepa_jax.errors import ArgumentError, CheckpointError

FAMILY = "dinov3"
MODEL_TYPES = ("dinov3_vit",)
IMAGE_PROCESSOR = "BitImageProcessor"

MASK_TOKEN = "embeddings.mask_token"
REGISTERS = "embeddings.register_tokens"
LEFT_OUT = {MASK_TOKEN: "used in pretraining alone", REGISTERS: "no register tokens: it is empty"}


def vit_spec(config: Config) -> ViTSpec:
    """The architecture that a ``config.json`` describes; where a field is absent, ``DINOv3ViTConfig``'s default."""
    gated = config.flag("use_gated_mlp", default=False)
    config.require("hidden_act", "silu" if gated else "gelu", default="gelu")
    config.require("num_channels", 3, default=3)
    config.require("proj_bias", True, default=True)
    config.require("mlp_bias", True, default=True)
    qkv_bias = config.flag("query_bias", default=True)
    config.require("value_bias", qkv_bias, default=True)
    key_bias = config.flag("key_bias", default=False)
    if key_bias and not qkv_bias:
        config.require("key_bias", False)
    return ViTSpec(
        width=config.integer("hidden_size", default=384),
        depth=config.integer("num_hidden_layers", default=12),
        heads=config.integer("num_attention_heads", default=6),
        patch_size=config.integer("patch_size", default=16),
        native_image_size=config.integer("image_size", default=224),
        mlp_width=config.integer("intermediate_size", default=1536),
        activation="swiglu" if gated else "gelu",
        norm_eps=config.epsilon("layer_norm_eps", default=1e-5),
        register_tokens=config.integer("num_register_tokens", default=0, least=0),
        layer_scale=True,
        qkv_bias=qkv_bias,
        rotary_base=config.number("rope_theta", default=100.0, least=1.0, most=MAX_ROTARY_BASE),
        key_bias=key_bias,
    )


def to_huggingface_config(spec: ViTSpec) -> dict[str, Any]:
    """The ``config.json`` that describes an architecture: the inverse of `vit_spec`."""
    if spec.rotary_periods != "exact":
        raise ArgumentError(
            f"rotary_periods={spec.rotary_periods!r} cannot be written for transformers, which computes them exactly: "
            "its scores would be others. Get the encoder's Hugging Face folder instead."
        )
    gated = spec.activation == "swiglu"
    return {
        "architectures": ["DINOv3ViTModel"],
        "model_type": "dinov3_vit",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.mlp_width,
        "use_gated_mlp": gated,
        "hidden_act": "silu" if gated else "gelu",
        "layer_norm_eps": spec.norm_eps,
        "image_size": spec.native_image_size,
        "patch_size": spec.patch_size,
        "num_channels": 3,
        "num_register_tokens": spec.register_tokens,
        "query_bias": spec.qkv_bias,
        "key_bias": spec.qkv_bias and spec.key_bias,
        "value_bias": spec.qkv_bias,
        "proj_bias": True,
        "mlp_bias": True,
        "rope_theta": spec.rotary_base,
    }


def default_recipe(spec: ViTSpec) -> PreprocessSpec:
    """Preprocessing where the folder does not say."""
    return dinov3_recipe(spec.native_image_size)


def unkept(spec: ViTSpec) -> dict[str, tuple[int, ...]]:
    """Tensors that a folder must have and an encoder does not: the mask token, and registers where there are none."""
    return {MASK_TOKEN: (1, 1, spec.width)} | ({} if spec.register_tokens else {REGISTERS: (1, 0, spec.width)})


def examined(spec: ViTSpec, reader: TensorReader) -> ViTSpec:
    """The architecture, where what is left out of a source does not contradict it."""
    if not spec.register_tokens and REGISTERS in reader.names():
        shape = reader.describe(REGISTERS).shape
        if shape != (1, 0, spec.width):
            raise CheckpointError(
                f"{reader.path}: tensor {REGISTERS} has shape {shape}, and the configuration has no register tokens; "
                "set num_register_tokens to what the weights were trained with."
            )
    return spec


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its Hugging Face name."""
    d = spec.width
    rows = [
        Row("class_token", ("embeddings.cls_token",), (1, 1, d)),
        *patch_projection("embeddings.patch_embeddings", spec),
        *layer_norm("norm", "norm", d),
    ]
    if spec.register_tokens:
        rows.append(Row("register_tokens", (REGISTERS,), (1, spec.register_tokens, d)))
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}", f"layer.{i}")
    return rows


def _block(spec: ViTSpec, ours: str, theirs: str) -> list[Row]:
    d, hidden = spec.width, spec.mlp_width
    query, key, value = (f"{theirs}.attention.{part}_proj" for part in "qkv")
    rows = [
        *layer_norm(f"{ours}.norm1", f"{theirs}.norm1", d),
        *linear(f"{ours}.attention.qkv", [query, key, value], d, d, bias=spec.qkv_bias and spec.key_bias),
        *linear(f"{ours}.attention.out", [f"{theirs}.attention.o_proj"], d, d),
        Row(f"{ours}.layer_scale1", (f"{theirs}.layer_scale1.lambda1",), (d,)),
        *layer_norm(f"{ours}.norm2", f"{theirs}.norm2", d),
        Row(f"{ours}.layer_scale2", (f"{theirs}.layer_scale2.lambda1",), (d,)),
    ]
    if spec.qkv_bias and not spec.key_bias:
        rows.append(Row(f"{ours}.attention.query_value_bias", (f"{query}.bias", f"{value}.bias"), (d,)))
    if spec.activation == "swiglu":
        gate_up = [f"{theirs}.mlp.{part}_proj" for part in ("gate", "up")]
        rows += linear(f"{ours}.mlp.gate_up", gate_up, hidden, d)
        rows += linear(f"{ours}.mlp.down", [f"{theirs}.mlp.down_proj"], d, hidden)
    else:
        rows += linear(f"{ours}.mlp.fc1", [f"{theirs}.mlp.up_proj"], hidden, d)
        rows += linear(f"{ours}.mlp.fc2", [f"{theirs}.mlp.down_proj"], d, hidden)
    return rows
