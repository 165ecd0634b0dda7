"""DINOv2 as `transformers` saves it: ``Dinov2Model`` and ``Dinov2WithRegistersModel`` folders."""

from __future__ import annotations

from typing import Any

from convert_weights.config import Config
from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import PreprocessSpec, ViTSpec
from jepa_jax.encoders.dinov2 import swiglu_width
from jepa_jax.errors import ArgumentError

FAMILY = "dinov2"
MODEL_TYPES = ("dinov2", "dinov2_with_registers")
IMAGE_PROCESSOR = "BitImageProcessor"

MASK_TOKEN = "embeddings.mask_token"
LEFT_OUT = {MASK_TOKEN: "used in pretraining alone"}


def vit_spec(config: Config) -> ViTSpec:
    """The architecture that a ``config.json`` describes; where a field is absent, ``Dinov2Config``'s default."""
    config.require("hidden_act", "gelu", default="gelu")
    config.require("num_channels", 3, default=3)
    registers = config.text("model_type") == "dinov2_with_registers"
    width = config.integer("hidden_size", default=768)
    swiglu = config.flag("use_swiglu_ffn", default=False)
    mlp_width = int(width * config.number("mlp_ratio", default=4, least=1e-3, most=1e3))
    return ViTSpec(
        width=width,
        depth=config.integer("num_hidden_layers", default=12),
        heads=config.integer("num_attention_heads", default=12),
        patch_size=config.integer("patch_size", default=16 if registers else 14),
        native_image_size=config.integer("image_size", default=224),
        mlp_width=swiglu_width(mlp_width) if swiglu else mlp_width,
        activation="swiglu" if swiglu else "gelu",
        norm_eps=config.epsilon("layer_norm_eps", default=1e-6),
        register_tokens=config.integer("num_register_tokens", default=4, least=0) if registers else 0,
        layer_scale=True,
        qkv_bias=config.flag("qkv_bias", default=True),
        position_resize="bicubic_antialias" if registers else "bicubic",
    )


def to_huggingface_config(spec: ViTSpec) -> dict[str, Any]:
    """The ``config.json`` that describes an architecture: the inverse of `vit_spec`."""
    swiglu = spec.activation == "swiglu"
    config: dict[str, Any] = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "mlp_ratio": _mlp_ratio(spec),
        "hidden_act": "gelu",
        "layer_norm_eps": spec.norm_eps,
        "image_size": spec.native_image_size,
        "patch_size": spec.patch_size,
        "num_channels": 3,
        "qkv_bias": spec.qkv_bias,
        "use_swiglu_ffn": swiglu,
    }
    if spec.register_tokens:
        config |= {
            "architectures": ["Dinov2WithRegistersModel"],
            "model_type": "dinov2_with_registers",
            "num_register_tokens": spec.register_tokens,
        }
    return config


def _mlp_ratio(spec: ViTSpec) -> int:
    """The whole number by which DINOv2's configuration gives the MLP's width."""
    for ratio in range(1, 1 + 2 * spec.mlp_width // spec.width):
        hidden = ratio * spec.width
        if spec.mlp_width == (swiglu_width(hidden) if spec.activation == "swiglu" else hidden):
            return ratio
    raise ArgumentError(f"mlp_width={spec.mlp_width} of width={spec.width} cannot be written as DINOv2's mlp_ratio.")


def default_recipe(spec: ViTSpec) -> PreprocessSpec:
    """Preprocessing where the folder does not say: 224 pixels, whatever size the positions are stored for."""
    del spec
    return PreprocessSpec()


def unkept(spec: ViTSpec) -> dict[str, tuple[int, ...]]:
    """Tensors that a folder must have and an encoder does not: the mask token, of use in pretraining alone."""
    return {MASK_TOKEN: (1, spec.width)}


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its Hugging Face name."""
    d = spec.width
    rows = [
        Row("class_token", ("embeddings.cls_token",), (1, 1, d)),
        Row("position_embedding", ("embeddings.position_embeddings",), (1, 1 + spec.native_grid**2, d)),
        *patch_projection("embeddings.patch_embeddings.projection", spec),
        *layer_norm("norm", "layernorm", d),
    ]
    if spec.register_tokens:
        rows.append(Row("register_tokens", ("embeddings.register_tokens",), (1, spec.register_tokens, d)))
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}", f"encoder.layer.{i}")
    return rows


def _block(spec: ViTSpec, ours: str, theirs: str) -> list[Row]:
    d, hidden = spec.width, spec.mlp_width
    qkv = [f"{theirs}.attention.attention.{part}" for part in ("query", "key", "value")]
    rows = [
        *layer_norm(f"{ours}.norm1", f"{theirs}.norm1", d),
        *linear(f"{ours}.attention.qkv", qkv, d, d, bias=spec.qkv_bias),
        *linear(f"{ours}.attention.out", [f"{theirs}.attention.output.dense"], d, d),
        Row(f"{ours}.layer_scale1", (f"{theirs}.layer_scale1.lambda1",), (d,)),
        *layer_norm(f"{ours}.norm2", f"{theirs}.norm2", d),
        Row(f"{ours}.layer_scale2", (f"{theirs}.layer_scale2.lambda1",), (d,)),
    ]
    if spec.activation == "swiglu":
        rows += linear(f"{ours}.mlp.gate_up", [f"{theirs}.mlp.weights_in"], 2 * hidden, d)
        rows += linear(f"{ours}.mlp.down", [f"{theirs}.mlp.weights_out"], d, hidden)
    else:
        rows += linear(f"{ours}.mlp.fc1", [f"{theirs}.mlp.fc1"], hidden, d)
        rows += linear(f"{ours}.mlp.fc2", [f"{theirs}.mlp.fc2"], d, hidden)
    return rows
