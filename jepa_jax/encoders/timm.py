"""Encoders that are published with timm's names and layout: TIPSv2, and VISReg.

TIPSv2 (arXiv 2604.12012) is read from timm's own repositories on the hub: B, L, SO-400M and g of patch size 14, with
one register, on 448 pixels. Its pictures go in as they are, from 0 to 1, without a mean or a standard deviation.

VISReg (Wu et al. 2026, arXiv 2606.02572), a JEPA: B/16 and L/14, state dicts of timm's ``vit_base_patch16_224`` and
``vit_large_patch14_224`` (github.com/HaiyuWu/visreg). The repository on the hub, BooBooWu/visreg, has the files alone
and no description, so each is converted by name. Training's projection is left out where it is there.

The embedding of both is the class token after the final LayerNorm: two structural null directions.
"""

from __future__ import annotations

from typing import Any

from jepa_jax.encoders.specs import EncoderSpec, ViTSpec
from jepa_jax.images.recipe import PreprocessSpec

_TIPSV2: dict[str, dict[str, Any]] = {
    "base": {"width": 768, "depth": 12, "heads": 12, "mlp_width": 3072},
    "large": {"width": 1024, "depth": 24, "heads": 16, "mlp_width": 4096},
    "so400m": {"width": 1152, "depth": 27, "heads": 16, "mlp_width": 4304},
    "giant": {"width": 1536, "depth": 40, "heads": 24, "mlp_width": 4096, "activation": "swiglu"},
}

_VISREG: dict[str, dict[str, Any]] = {
    "base": {"width": 768, "depth": 12, "heads": 12, "mlp_width": 3072, "patch_size": 16},
    "large": {"width": 1024, "depth": 24, "heads": 16, "mlp_width": 4096, "patch_size": 14},
    "large-22k": {"width": 1024, "depth": 24, "heads": 16, "mlp_width": 4096, "patch_size": 14},
}
"""Trained on ImageNet-1k, and the last one on ImageNet-22k."""


def _tipsv2(size: str) -> EncoderSpec:
    return EncoderSpec(
        name=f"tipsv2-{size}",
        family="timm",
        vit=ViTSpec(
            **_TIPSV2[size],
            patch_size=14,
            native_image_size=448,
            register_tokens=1,
            class_position=False,
            layer_scale=True,
            position_resize="bicubic_antialias",
        ),
        preprocess=PreprocessSpec(448, 448, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        hub_id=f"timm/vit_{size}_patch14_reg1_tipsv2.webli",
        licence="Apache-2.0",
    )


def _visreg(size: str) -> EncoderSpec:
    return EncoderSpec(
        name=f"visreg-{size}",
        family="timm",
        vit=ViTSpec(**_VISREG[size], native_image_size=224, position_resize="bicubic_antialias"),
        preprocess=PreprocessSpec(resize_shortest=256, crop=224),
        licence="CC-BY-NC-4.0",
    )


TIMM = {spec.name: spec for spec in (*map(_tipsv2, _TIPSV2), *map(_visreg, _VISREG))}
"""By name, with the recipes that are published with them."""
