"""timm's ``config.json``: the name of an architecture, arguments that change it, and ``pretrained_cfg``, the recipe.

A name stands for arguments that timm knows by heart: `_named` says them of every ``vit_*`` that is a vision
transformer as this package has it. ``model_args`` come before them, as in timm. What such an argument would change and
this package does not do is refused by name.
"""

from __future__ import annotations

import math
import re
from typing import Any

from convert_weights.config import Config, shown
from jepa_jax.encoders import PreprocessSpec, ViTSpec
from jepa_jax.encoders.specs import Activation, Pooling
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.images.recipe import MAX_SIDE, Interpolation

_SIZES: dict[str, tuple[int, int, int, float]] = {
    "tiny": (192, 12, 3, 4),
    "wee": (256, 14, 4, 5),
    "little": (320, 14, 5, 5.6),
    "small": (384, 12, 6, 4),
    "medium": (512, 12, 8, 4),
    "mediumd": (512, 20, 8, 4),
    "betwixt": (640, 12, 10, 4),
    "base": (768, 12, 12, 4),
    "large": (1024, 24, 16, 4),
    "so400m": (1152, 27, 16, 3.7362),
    "huge": (1280, 32, 16, 4),
    "giant": (1408, 40, 16, 48 / 11),
    "giantopt": (1536, 40, 16, 4),
    "gigantic": (1664, 48, 16, 64 / 13),
}
"""Width, depth, heads and ratio of the MLP by the word in a name."""

_NAME = re.compile(
    r"vit_(?P<size>[a-z0-9]+)_patch(?P<patch>\d+)(?P<plus>_plus)?(_reg(?P<registers>\d))?"
    r"(?P<kind>_gap|_clip|_clip_quickgelu|_dinov2|_tipsv2|_siglip_gap)?(_(?P<image>\d+))?"
)

_WITHOUT_SIZE = {"_dinov2": 518, "_tipsv2": 224}
"""Kinds in whose names no image size stands, and the one that they begin with; ``pretrained_cfg`` may have another."""

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "quickgelu": "quick_gelu",
}
_INTERPOLATIONS: dict[str, Interpolation] = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_WITHOUT_EFFECT = {
    "num_classes",
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "fix_init",
    "dynamic_img_size",
}
_ONLY: dict[str, Any] = {
    "in_chans": 3,
    "qk_norm": False,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "proj_bias": True,
    "pos_embed": "learn",
    "final_norm": True,
    "pool_include_prefix": False,
    "dynamic_img_pad": False,
}
"""Arguments that may say this alone."""


def vit_spec(config: Config) -> ViTSpec:
    """The architecture that timm builds of a ``config.json``.

    Raises:
        CheckpointError: its name is not known here, or an argument is of something that is not done here.
    """
    name, pretrained = config.text("architecture"), config.section("pretrained_cfg")
    named = _named(name)
    if named is None:
        raise CheckpointError(
            f"{config.path}: timm's architecture {shown(name)} is not read; those of plain vision transformers are, "
            "such as 'vit_base_patch16_224', 'vit_base_patch14_dinov2' or 'vit_base_patch16_clip_224', and SigLIP's "
            "attention pooling as google's own folders have it."
        )
    if pretrained.flag("fixed_input_size", False) and "input_size" in pretrained:
        named["img_size"] = _input_size(pretrained)
    told = config.section("model_args")
    unknown = sorted(told.fields().keys() - named.keys() - _ONLY.keys() - _WITHOUT_EFFECT - {"fc_norm", "act_layer"})
    if unknown:
        raise told.unknown(unknown[0])
    for field, only in _ONLY.items():
        told.require(field, only, default=only)
    # A null is an argument too: no LayerScale, and fc_norm as the pooling has it.
    args = Config(config.path, named | {name: told.get(name) for name in named if told.has(name)}, "model_args.")
    pool = args.text("global_pool")
    config.require("global_pool", pool, default=pool)
    poolings: dict[str, Pooling] = {"token": "class_token", "avg": "mean_patches"}
    if pool not in poolings:
        raise args.wrong("global_pool", f"one of {', '.join(poolings)}")
    return _spec(config, args, told, poolings[pool])


def _spec(config: Config, args: Config, told: Config, pooling: Pooling) -> ViTSpec:
    width = args.integer("embed_dim")
    hidden = int(width * args.number("mlp_ratio", least=1e-3, most=1e3))
    swiglu = args.flag("swiglu", False)
    activation = told.text("act_layer", args.text("act"))
    if not swiglu and activation not in _ACTIVATIONS:
        raise told.wrong("act_layer", f"one of {', '.join(_ACTIVATIONS)}")
    class_token, registers = args.flag("class_token", True), args.integer("reg_tokens", 0, least=0)
    without_position = args.flag("no_embed_class", False)
    if registers and not without_position:
        raise CheckpointError(f"{config.path}: registers have positions (no_embed_class is false), which is not done.")
    if "init_values" in args:
        args.number("init_values", least=0, most=1e6)
    try:
        return ViTSpec(
            width=width,
            depth=args.integer("depth"),
            heads=args.integer("num_heads"),
            patch_size=args.integer("patch_size"),
            native_image_size=args.integer("img_size"),
            mlp_width=hidden // 2 if swiglu else hidden,
            activation="swiglu" if swiglu else _ACTIVATIONS[activation],
            norm_eps=args.number("eps", least=0, most=1),
            register_tokens=registers,
            class_token=class_token,
            layer_scale="init_values" in args,
            qkv_bias=args.flag("qkv_bias", True),
            patch_bias=not args.flag("pre_norm", False),
            pre_norm=args.flag("pre_norm", False),
            pooling=pooling,
            position_resize="bicubic_antialias",
            cut_edges=args.integer("img_size") % args.integer("patch_size") > 0,
            class_position=not (class_token and without_position),
            norm_after_pooling=uses_fc_norm(args, told) and pooling != "class_token",
        )
    except ArgumentError as error:
        raise CheckpointError(f"{config.path}: {error}") from error


def uses_fc_norm(args: Config, told: Config) -> bool:
    """Whether the final norm is called ``fc_norm`` and stands behind the pooling."""
    default = args.flag("fc", args.text("global_pool") == "avg")
    return told.flag("fc_norm", default)


def recipe(config: Config, image_size: int) -> PreprocessSpec:
    """The preprocessing of ``pretrained_cfg``, for inference; where it is silent, timm's own defaults."""
    pretrained = config.section("pretrained_cfg")
    interpolation = pretrained.text("interpolation", "bicubic")
    if interpolation not in _INTERPOLATIONS:
        raise pretrained.wrong("interpolation", f"one of {', '.join(_INTERPOLATIONS)}")
    crop = _input_size(pretrained) if "input_size" in pretrained else image_size
    resize = math.floor(crop / pretrained.number("crop_pct", 0.875, least=0.01, most=1))
    mode = pretrained.text("crop_mode", "center")
    if mode not in ("center", "squash") or (mode == "squash" and resize != crop):
        raise pretrained.wrong("crop_mode", "center, or squash with crop_pct 1")
    try:
        return PreprocessSpec(
            resize_shortest=resize,
            crop=crop,
            interpolation=_INTERPOLATIONS[interpolation],
            mean=pretrained.triple("mean", IMAGENET_MEAN),
            std=pretrained.triple("std", IMAGENET_STD),
            squeeze=mode == "squash",
        )
    except ArgumentError as error:
        raise CheckpointError(f"{config.path}: {error}") from error


def _input_size(pretrained: Config) -> int:
    size = pretrained.get("input_size")
    if not isinstance(size, list) or len(size) != 3 or size[0] != 3 or size[1] != size[2] or type(size[1]) is not int:
        raise pretrained.wrong("input_size", "3 channels and the sides of a square")
    if not 1 <= size[1] <= MAX_SIDE:
        raise pretrained.wrong("input_size", f"sides from 1 to {MAX_SIDE} pixels")
    return size[1]


def _named(name: str) -> dict[str, Any] | None:
    """What a name stands for, by timm's own words; None if it is not known here."""
    found = _NAME.fullmatch(name)
    kind = found["kind"] or "" if found else ""
    if not found or found["size"] not in _SIZES:
        return None
    width, depth, heads, ratio = _SIZES[found["size"]]
    registers, patch = int(found["registers"] or 0), int(found["patch"])
    sized = kind not in _WITHOUT_SIZE
    if sized == (found["image"] is None) or (registers and sized and kind != "_gap"):
        return None
    if kind == "_tipsv2" and registers != 1:
        return None
    args: dict[str, Any] = {
        "img_size": int(found["image"] or _WITHOUT_SIZE[kind]),
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": ratio,
        "qkv_bias": True,
        "init_values": None,
        "class_token": True,
        "no_embed_class": False,
        "reg_tokens": registers,
        "pre_norm": False,
        "global_pool": "token",
        "eps": 1e-6,
        "act": "gelu",
    }
    if found["plus"]:
        args |= {"embed_dim": 896, "num_heads": 14} | ({"init_values": 1e-5} if not kind else {})
    if kind.startswith("_clip"):
        args |= {"pre_norm": True, "eps": 1e-5, "act": "quick_gelu" if kind.endswith("quickgelu") else "gelu"}
    if kind == "_dinov2":
        args |= {"init_values": 1e-5, "no_embed_class": bool(registers)}
    if kind == "_tipsv2":
        args |= {"init_values": 1.0, "no_embed_class": True}
    if kind in _WITHOUT_SIZE and found["size"] == "giant":
        args |= {"embed_dim": 1536, "num_heads": 24, "mlp_ratio": 2.66667 * 2, "swiglu": True}
    if kind in ("_gap", "_siglip_gap"):
        args |= {"class_token": False, "global_pool": "avg", "fc": bool(registers), "no_embed_class": bool(registers)}
    if kind == "_gap" and registers and found["size"] != "base":
        args |= {"init_values": 1e-5}
    if kind == "_gap" and not registers:
        if found["size"] in ("medium", "betwixt"):
            args |= {"init_values": 1e-6, "qkv_bias": False}
        if found["size"] == "base":
            args |= {"num_heads": 16}
    if kind == "_siglip_gap" and (
        found["size"] == "giantopt"
        or (found["size"] == "so400m" and patch == 16)
        or (found["size"] == "base" and patch == 32)
        or (found["size"] == "large" and found["image"] == "512")
    ):
        args |= {"act": "gelu_tanh"}
    return args
