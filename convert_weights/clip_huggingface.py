"""CLIP as `transformers` saves it: ``CLIPModel`` and ``CLIPVisionModelWithProjection`` folders.

Of a ``CLIPModel`` the image tower is read, and the text tower left out. What is written back is always a
``CLIPVisionModelWithProjection``.
"""

from __future__ import annotations

from typing import Any

from convert_weights.config import Config
from convert_weights.tables import Row, layer_norm, linear, patch_projection
from jepa_jax.encoders import PreprocessSpec, ViTSpec
from jepa_jax.encoders.clip import clip_recipe
from jepa_jax.encoders.specs import Activation

FAMILY = "clip"
MODEL_TYPES = ("clip", "clip_vision_model")
IMAGE_PROCESSOR = "CLIPImageProcessor"

LEFT_OUT = {
    "text_model.": "the text tower",
    "text_projection.weight": "the text tower's projection",
    "logit_scale": "the temperature between both towers",
    "vision_model.embeddings.position_ids": "0, 1, 2, ...: a buffer of older releases of transformers",
}

_ACTIVATIONS: dict[str, Activation] = {"quick_gelu": "quick_gelu", "gelu": "gelu"}


def vit_spec(config: Config) -> ViTSpec:
    """The architecture that a ``config.json`` describes; where a field is absent, ``CLIPVisionConfig``'s default."""
    if config.text("model_type") == "clip":
        projection = config.integer("projection_dim", default=512)
        # Old files carry their values in vision_config_dict, which transformers then prefers as a whole.
        config = config.section("vision_config_dict" if "vision_config_dict" in config else "vision_config")
    else:
        projection = config.integer("projection_dim", default=512)
    config.require("num_channels", 3, default=3)
    activation = config.text("hidden_act", "quick_gelu")
    if activation not in _ACTIVATIONS:
        raise config.wrong("hidden_act", f"one of {', '.join(_ACTIVATIONS)}")
    return ViTSpec(
        width=config.integer("hidden_size", default=768),
        depth=config.integer("num_hidden_layers", default=12),
        heads=config.integer("num_attention_heads", default=12),
        patch_size=config.integer("patch_size", default=32),
        native_image_size=config.integer("image_size", default=224),
        mlp_width=config.integer("intermediate_size", default=3072),
        activation=_ACTIVATIONS[activation],
        norm_eps=config.epsilon("layer_norm_eps", default=1e-5),
        patch_bias=False,
        pre_norm=True,
        projection=projection,
        position_resize="bicubic",
    )


def to_huggingface_config(spec: ViTSpec) -> dict[str, Any]:
    """The ``config.json`` that describes an architecture: the inverse of `vit_spec`.

    A division by the embedding's length has no place in it: `transformers` leaves that to the caller.
    """
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.mlp_width,
        "hidden_act": spec.activation,
        "layer_norm_eps": spec.norm_eps,
        "image_size": spec.native_image_size,
        "patch_size": spec.patch_size,
        "num_channels": 3,
        "projection_dim": spec.projection,
    }


def default_recipe(spec: ViTSpec) -> PreprocessSpec:
    """Preprocessing where the folder does not say."""
    return clip_recipe(spec.native_image_size)


def unkept(spec: ViTSpec) -> dict[str, tuple[int, ...]]:
    """Tensors that a folder must have and an encoder does not: none."""
    del spec
    return {}


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its Hugging Face name (``pre_layrnorm`` is misspelt there)."""
    d = spec.width
    assert spec.projection is not None
    rows = [
        Row("class_token", ("vision_model.embeddings.class_embedding",), (d,)),
        Row(
            "position_embedding",
            ("vision_model.embeddings.position_embedding.weight",),
            (1 + spec.native_grid**2, d),
        ),
        *patch_projection("vision_model.embeddings.patch_embedding", spec),
        *layer_norm("pre_norm", "vision_model.pre_layrnorm", d),
        *layer_norm("norm", "vision_model.post_layernorm", d),
        *linear("projection", ["visual_projection"], spec.projection, d, bias=False),
    ]
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}", f"vision_model.encoder.layers.{i}")
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
