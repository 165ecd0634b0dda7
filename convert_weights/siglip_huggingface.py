"""SigLIP and SigLIP 2 as `transformers` saves them: ``SiglipModel`` and ``SiglipVisionModel`` folders.

Of a ``SiglipModel`` the image tower is read, and the text tower left out. What is written back is always a
``SiglipVisionModel``. The names are those that release 5 writes for it; older files, and two towers together, have
``vision_model.`` before each.
"""

from __future__ import annotations

from typing import Any

from convert_weights.config import Config
from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import PreprocessSpec, ViTSpec
from jepa_jax.encoders.siglip import siglip_recipe, siglip_vit
from jepa_jax.encoders.specs import Activation

FAMILY = "siglip"
MODEL_TYPES = ("siglip", "siglip_vision_model")
IMAGE_PROCESSOR = "SiglipImageProcessor"

NOT_READ = dict.fromkeys(
    ("siglip2", "siglip2_vision_model"),
    "SigLIP 2's NaFlex, which takes pictures in their own shapes and is not supported; its checkpoints of one size, "
    "google/siglip2-base-patch16-224 among them, are",
)
"""Model types that are told from unknown ones, with what they are."""

LEFT_OUT = {
    "text_model.": "the text tower",
    "logit_scale": "the temperature between both towers",
    "logit_bias": "the bias between both towers",
    "embeddings.position_ids": "0, 1, 2, ...: a buffer of older releases of transformers",
}

_ACTIVATIONS: dict[str, Activation] = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}


def vit_spec(config: Config) -> ViTSpec:
    """The architecture that a ``config.json`` describes; where a field is absent, ``SiglipVisionConfig``'s default."""
    if config.text("model_type") == "siglip":
        config = config.section("vision_config")
    config.require("num_channels", 3, default=3)
    config.require("vision_use_head", True, default=True)
    activation = config.text("hidden_act", "gelu_pytorch_tanh")
    if activation not in _ACTIVATIONS:
        raise config.wrong("hidden_act", f"one of {', '.join(_ACTIVATIONS)}")
    return siglip_vit(
        config.integer("image_size", default=224),
        config.integer("patch_size", default=16),
        width=config.integer("hidden_size", default=768),
        depth=config.integer("num_hidden_layers", default=12),
        heads=config.integer("num_attention_heads", default=12),
        mlp_width=config.integer("intermediate_size", default=3072),
        activation=_ACTIVATIONS[activation],
        norm_eps=config.epsilon("layer_norm_eps", default=1e-6),
    )


def to_huggingface_config(spec: ViTSpec) -> dict[str, Any]:
    """The ``config.json`` that describes an architecture: the inverse of `vit_spec`.

    A division by the embedding's length has no place in it: `transformers` leaves that to the caller.
    """
    return {
        "architectures": ["SiglipVisionModel"],
        "model_type": "siglip_vision_model",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.mlp_width,
        "hidden_act": next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == spec.activation),
        "layer_norm_eps": spec.norm_eps,
        "image_size": spec.native_image_size,
        "patch_size": spec.patch_size,
        "num_channels": 3,
    }


def default_recipe(spec: ViTSpec) -> PreprocessSpec:
    """Preprocessing where the folder does not say."""
    return siglip_recipe(spec.native_image_size)


def unkept(spec: ViTSpec) -> dict[str, tuple[int, ...]]:
    """Tensors that a folder must have and an encoder does not: none."""
    del spec
    return {}


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its Hugging Face name."""
    d, hidden = spec.width, spec.mlp_width
    rows = [
        Row("position_embedding", ("embeddings.position_embedding.weight",), (spec.native_grid**2, d)),
        *patch_projection("embeddings.patch_embedding", spec),
        *layer_norm("norm", "post_layernorm", d),
        Row("attention_pool.probe", ("head.probe",), (1, 1, d)),
        # torch.nn.MultiheadAttention: query, key and value one below the other.
        Row("attention_pool.qkv.kernel", ("head.attention.in_proj_weight",), (3 * d, d), "linear"),
        Row("attention_pool.qkv.bias", ("head.attention.in_proj_bias",), (3 * d,)),
        *linear("attention_pool.out", ["head.attention.out_proj"], d, d),
        *layer_norm("attention_pool.norm", "head.layernorm", d),
        *linear("attention_pool.mlp.fc1", ["head.mlp.fc1"], hidden, d),
        *linear("attention_pool.mlp.fc2", ["head.mlp.fc2"], d, hidden),
    ]
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}", f"encoder.layers.{i}")
    return rows


def _block(spec: ViTSpec, ours: str, theirs: str) -> list[Row]:
    d, hidden = spec.width, spec.mlp_width
    qkv = [f"{theirs}.self_attn.{part}_proj" for part in ("q", "k", "v")]
    return [
        *layer_norm(f"{ours}.norm1", f"{theirs}.layer_norm1", d),
        *linear(f"{ours}.attention.qkv", qkv, d, d),
        *linear(f"{ours}.attention.out", [f"{theirs}.self_attn.out_proj"], d, d),
        *layer_norm(f"{ours}.norm2", f"{theirs}.layer_norm2", d),
        *linear(f"{ours}.mlp.fc1", [f"{theirs}.mlp.fc1"], hidden, d),
        *linear(f"{ours}.mlp.fc2", [f"{theirs}.mlp.fc2"], d, hidden),
    ]
