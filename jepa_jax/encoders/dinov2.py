"""DINOv2: ViT-S, B, L and g, each with and without register tokens; and Web-DINO, DINOv2 trained on the web at large.

Sources: Oquab et al. 2023 (arXiv 2304.07193); registers: Darcet et al. 2023 (arXiv 2309.16588); Web-DINO: Fan et al.
2025 (arXiv 2504.01017), whose architectures and recipe are those of github.com/facebookresearch/webssl.
The embedding is the class token after the final LayerNorm (``x_norm_clstoken``, ``pooler_output``),
which gives the Jacobian two structural null directions.
"""

from __future__ import annotations

from typing import Any

from jepa_jax.encoders.specs import EncoderSpec, PositionResize, ViTSpec
from jepa_jax.images.recipe import PreprocessSpec

REGISTER_TOKENS = 4

_SIZES = {
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
    "giant": {"width": 1536, "depth": 40, "heads": 24},
}


def swiglu_width(mlp_width: int) -> int:
    """Width of each SwiGLU branch that stands in for a plain MLP: two thirds, rounded up to a multiple of 8."""
    return (mlp_width * 2 // 3 + 7) // 8 * 8


def _variant(size: str, registers: bool) -> EncoderSpec:
    shape = _SIZES[size]
    swiglu = size == "giant"
    mlp_width = 4 * shape["width"]
    suffix = "-with-registers" if registers else ""
    position_resize: PositionResize = "bicubic_antialias" if registers else "bicubic_offset"
    return EncoderSpec(
        name=f"dinov2{suffix}-{size}",
        family="dinov2",
        vit=ViTSpec(
            width=shape["width"],
            depth=shape["depth"],
            heads=shape["heads"],
            patch_size=14,
            native_image_size=518,
            mlp_width=swiglu_width(mlp_width) if swiglu else mlp_width,
            activation="swiglu" if swiglu else "gelu",
            register_tokens=REGISTER_TOKENS if registers else 0,
            layer_scale=True,
            position_resize=position_resize,
        ),
        preprocess=PreprocessSpec(resize_shortest=256, crop=224),
        hub_id=f"facebook/dinov2{suffix}-{size}",
        licence="Apache-2.0",
    )


DINOV2 = {spec.name: spec for registers in (False, True) for size in _SIZES for spec in [_variant(size, registers)]}
"""Every published DINOv2 encoder by name, at the 224-pixel recipe of its model card."""

_WEB_SIZES: dict[str, tuple[dict[str, Any], str, int]] = {
    "300m": ({"width": 1024, "depth": 24, "heads": 16}, "full2b", 224),
    "1b": ({"width": 1536, "depth": 40, "heads": 24}, "full2b", 224),
    "2b": ({"width": 2688, "depth": 24, "heads": 21}, "full2b", 224),
    "3b": ({"width": 3072, "depth": 26, "heads": 24}, "full2b", 224),
    "5b": ({"width": 3584, "depth": 32, "heads": 28}, "full2b", 224),
    "7b": ({"width": 4096, "depth": 32, "heads": 32}, "full8b", 224),
    "7b-378": ({"width": 4096, "depth": 32, "heads": 32}, "full8b", 378),
    "7b-518": ({"width": 4096, "depth": 32, "heads": 32}, "full8b", 518),
}


def _web(name: str) -> EncoderSpec:
    shape, data, side = _WEB_SIZES[name]
    return EncoderSpec(
        name=f"web-dino-{name}",
        family="dinov2",
        vit=ViTSpec(
            **shape,
            patch_size=14,
            native_image_size=side,
            mlp_width=swiglu_width(4 * shape["width"]),
            activation="swiglu",
            layer_scale=True,
            position_resize="bicubic_offset",
        ),
        preprocess=PreprocessSpec(resize_shortest=side, crop=side, squeeze=True),
        hub_id=f"facebook/webssl-dino{name.partition('-')[0]}-{data}-{side}",
        licence="CC-BY-NC-4.0",
    )


WEB_DINO = {spec.name: spec for spec in map(_web, _WEB_SIZES)}
"""Web-DINO's encoders of all web images by name, with the recipe of its authors' example."""
