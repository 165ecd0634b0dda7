"""V-JEPA 2 as `transformers` saves it: ``VJEPA2Model`` folders, and ``VJEPA2ForVideoClassification``.

The encoder lies under ``encoder.``, beside the predictor, which scores need no part of. Positions are computed.
"""

from __future__ import annotations

import math
from typing import Any

from convert_weights.config import MAX_INTEGER, Config
from convert_weights.tables import Row, layer_norm, linear, tubelet_projection
from jepa_jax.encoders import PreprocessSpec, ViTSpec
from jepa_jax.encoders.vjepa2 import ROTARY_BASE, vjepa2_recipe
from jepa_jax.errors import ArgumentError

FAMILY = "vjepa2"
MODEL_TYPES = ("vjepa2",)

LEFT_OUT = {"predictor.": "the predictor, used in pretraining alone"}

_PREDICTOR = {
    "pred_hidden_size": 6,
    "pred_num_attention_heads": 1,
    "pred_num_hidden_layers": 0,
    "pred_num_mask_tokens": 1,
}
"""The least one that `transformers` builds: an encoder is written with it, as zeros, since a folder must have one."""


def vit_spec(config: Config) -> ViTSpec:
    """The architecture that a ``config.json`` describes; where a field is absent, ``VJEPA2Config``'s default."""
    config.require("hidden_act", "gelu", default="gelu")
    config.require("in_chans", 3, default=3)
    width = config.integer("hidden_size", default=1024)
    return ViTSpec(
        width=width,
        depth=config.integer("num_hidden_layers", default=24),
        heads=config.integer("num_attention_heads", default=16),
        patch_size=config.integer("patch_size", default=16),
        native_image_size=config.integer("crop_size", default=256),
        mlp_width=int(width * config.number("mlp_ratio", default=4.0, least=1 / width, most=MAX_INTEGER / width)),
        norm_eps=config.epsilon("layer_norm_eps", default=1e-6),
        class_token=False,
        qkv_bias=config.flag("qkv_bias", default=True),
        pooling="mean_patches",
        rotary_base=ROTARY_BASE,
        tubelet=config.integer("tubelet_size", default=2),
    )


def to_huggingface_config(spec: ViTSpec) -> dict[str, Any]:
    """The ``config.json`` that describes an architecture: the inverse of `vit_spec`."""
    if spec.rotary_base != ROTARY_BASE:
        raise ArgumentError(
            f"rotary_base={spec.rotary_base} cannot be written for transformers, whose V-JEPA 2 has {ROTARY_BASE:g}: "
            "its scores would be others."
        )
    ratio = spec.mlp_width / spec.width
    if int(spec.width * ratio) < spec.mlp_width:
        ratio = math.nextafter(ratio, math.inf)
    return {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "mlp_ratio": ratio,
        "hidden_act": "gelu",
        "layer_norm_eps": spec.norm_eps,
        "crop_size": spec.native_image_size,
        "patch_size": spec.patch_size,
        "tubelet_size": spec.tubelet,
        "in_chans": 3,
        "qkv_bias": spec.qkv_bias,
        **_PREDICTOR,
    }


def default_recipe(spec: ViTSpec) -> PreprocessSpec:
    """Preprocessing where the folder does not say."""
    return vjepa2_recipe(spec.native_image_size)


def unkept(spec: ViTSpec) -> dict[str, tuple[int, ...]]:
    """Tensors that a folder must have and an encoder does not: those of the least predictor."""
    d, p = spec.width, _PREDICTOR["pred_hidden_size"]
    return {
        "predictor.embeddings.mask_tokens": (_PREDICTOR["pred_num_mask_tokens"], 1, 1, p),
        "predictor.embeddings.predictor_embeddings.weight": (p, d),
        "predictor.embeddings.predictor_embeddings.bias": (p,),
        "predictor.layernorm.weight": (p,),
        "predictor.layernorm.bias": (p,),
        "predictor.proj.weight": (d, p),
        "predictor.proj.bias": (d,),
    }


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by its Hugging Face name."""
    rows = [
        *tubelet_projection("encoder.embeddings.patch_embeddings.proj", spec),
        *layer_norm("norm", "encoder.layernorm", spec.width),
    ]
    for i in range(spec.depth):
        rows += _block(spec, f"blocks.{i}", f"encoder.layer.{i}")
    return rows


def _block(spec: ViTSpec, ours: str, theirs: str) -> list[Row]:
    d, hidden = spec.width, spec.mlp_width
    qkv = [f"{theirs}.attention.{part}" for part in ("query", "key", "value")]
    return [
        *layer_norm(f"{ours}.norm1", f"{theirs}.norm1", d),
        *linear(f"{ours}.attention.qkv", qkv, d, d, bias=spec.qkv_bias),
        *linear(f"{ours}.attention.out", [f"{theirs}.attention.proj"], d, d),
        *layer_norm(f"{ours}.norm2", f"{theirs}.norm2", d),
        *linear(f"{ours}.mlp.fc1", [f"{theirs}.mlp.fc1"], hidden, d),
        *linear(f"{ours}.mlp.fc2", [f"{theirs}.mlp.fc2"], d, hidden),
    ]
