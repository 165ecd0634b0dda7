"""DINOv2 as `transformers` saves it: ``Dinov2Model`` and ``Dinov2WithRegistersModel`` folders."""

from __future__ import annotations

from convert_weights.huggingface import Config
from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import EncoderSpec, ViTSpec, find_spec
from jepa_jax.encoders.dinov2 import swiglu_width

MODEL_TYPES = ("dinov2", "dinov2_with_registers")

LEFT_OUT = {"embeddings.mask_token": "used in pretraining alone"}


def vit_spec(config: Config) -> ViTSpec:
    """The architecture that a ``config.json`` describes."""
    config.require("hidden_act", "gelu")
    config.require("num_channels", 3, default=3)
    registers = config.text("model_type") == "dinov2_with_registers"
    width = config.integer("hidden_size")
    swiglu = config.flag("use_swiglu_ffn", default=False)
    mlp_width = int(width * config.number("mlp_ratio", default=4))
    return ViTSpec(
        width=width,
        depth=config.integer("num_hidden_layers"),
        heads=config.integer("num_attention_heads"),
        patch_size=config.integer("patch_size"),
        native_image_size=config.integer("image_size"),
        mlp_width=swiglu_width(mlp_width) if swiglu else mlp_width,
        activation="swiglu" if swiglu else "gelu",
        norm_eps=config.number("layer_norm_eps", default=1e-6),
        register_tokens=config.integer("num_register_tokens", default=4) if registers else 0,
        layer_scale=True,
        qkv_bias=config.flag("qkv_bias", default=True),
        position_resize="bicubic_antialias" if registers else "bicubic",
    )


def default_spec() -> EncoderSpec:
    """Licence and preprocessing where the folder does not say."""
    return find_spec("dinov2-base")


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
