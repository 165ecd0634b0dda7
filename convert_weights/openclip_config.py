"""``open_clip_config.json``: what OpenCLIP writes beside its weights, and by which it builds the model.

A file of OpenCLIP's weights does not hold its activation or its recipe; this file does, and it decides.
"""

from __future__ import annotations

from convert_weights.config import Config, shown
from jepa_jax.encoders import PreprocessSpec, ViTSpec
from jepa_jax.encoders.clip import CLIP_MEAN, CLIP_STD
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.images.recipe import MAX_SIDE, Interpolation

_INTERPOLATIONS: dict[str, Interpolation] = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
"""``random`` is one of training, and bicubic afterwards."""

_RESIZE_MODES = ("shortest", "squash")

_VISION_READ = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "pool_type", "norm_kwargs"}
_VISION_WITHOUT_EFFECT = {"patch_dropout", "output_tokens", "timm_model_pretrained", "timm_pool", "timm_proj"}
_VISION_DEFAULTS = {
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,  # for pool_type tok both are the same
    "attentional_pool": False,
    "no_ln_pre": False,
    "input_patchnorm": False,
    "global_average_pool": False,
}
_MODEL_READ = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale", "output_dict"}


def vit_spec(config: Config) -> ViTSpec:
    """The architecture of the image tower.

    Raises:
        CheckpointError: it is a tower that this package does not have, or no tower at all.
    """
    model = config.section("model_cfg")
    vision = model.section("vision_cfg")
    if "timm_model_name" in vision:
        raise CheckpointError(
            f"{config.path}: the image tower is one of timm ({shown(vision.get('timm_model_name'))})."
        )
    _refuse_unknown(vision, _VISION_READ | _VISION_WITHOUT_EFFECT | _VISION_DEFAULTS.keys())
    _refuse_unknown(model, _MODEL_READ)
    vision.require("pool_type", "tok", default="tok")
    for name, expected in _VISION_DEFAULTS.items():
        if name != "final_ln_after_pool":
            vision.require(name, expected, default=expected)
    norm = vision.section("norm_kwargs")
    _refuse_unknown(norm, {"eps"})
    width = vision.integer("width", 768)
    head_width = vision.integer("head_width", 64)
    if head_width > width:
        raise vision.wrong("head_width", f"no more than the width ({width})", 64)
    try:
        return ViTSpec(
            width=width,
            depth=vision.integer("layers", 12),
            heads=width // head_width,
            patch_size=_side(vision, "patch_size", 16),
            native_image_size=_side(vision, "image_size", 224),
            mlp_width=max(1, int(width * vision.number("mlp_ratio", 4.0, least=1e-3, most=1e3))),
            activation="quick_gelu" if model.flag("quick_gelu", False) else "gelu",
            norm_eps=norm.epsilon("eps", 1e-5),
            patch_bias=False,
            pre_norm=True,
            projection=model.integer("embed_dim"),
            position_resize="bicubic_antialias",
        )
    except ArgumentError as error:
        raise CheckpointError(f"{config.path}: {error}") from error


def recipe(config: Config, image_size: int) -> PreprocessSpec:
    """The preprocessing for inference, whose size is that of the tower."""
    preprocess = config.section("preprocess_cfg")
    _refuse_unknown(preprocess, {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"})
    preprocess.require("mode", "RGB", default="RGB")
    interpolation = preprocess.text("interpolation", "bicubic")
    resize_mode = preprocess.text("resize_mode", "shortest")
    if interpolation not in _INTERPOLATIONS:
        raise preprocess.wrong("interpolation", f"one of {', '.join(_INTERPOLATIONS)}")
    if resize_mode not in _RESIZE_MODES:
        raise preprocess.wrong("resize_mode", f"one of {', '.join(_RESIZE_MODES)}")
    try:
        return PreprocessSpec(
            resize_shortest=image_size,
            crop=image_size,
            interpolation=_INTERPOLATIONS[interpolation],
            mean=preprocess.triple("mean", CLIP_MEAN),
            std=preprocess.triple("std", CLIP_STD),
            squeeze=resize_mode == "squash",
        )
    except ArgumentError as error:
        raise CheckpointError(f"{config.path}: {error}") from error


def _refuse_unknown(config: Config, known: set[str]) -> None:
    # What is false, empty or zero is an option of other towers that was not taken.
    unknown = sorted(name for name, value in config.fields().items() if name not in known and value)
    if unknown:
        raise config.unknown(unknown[0])


def _side(config: Config, name: str, default: int) -> int:
    value = config.get(name, default)
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int) or isinstance(sides[0], bool):
        raise config.wrong(name, "one side in pixels", default)
    if not 1 <= sides[0] <= MAX_SIDE:
        raise config.wrong(name, f"a side from 1 to {MAX_SIDE} pixels", default)
    return sides[0]
