"""DINOv3: ViT-S, S+, B, L, H+ and 7B, trained on web images (LVD-1689M), L and 7B on satellite images (SAT-493M) too.

Source: Simeoni et al. 2025 (arXiv 2508.10104). The embedding is the class token after the final LayerNorm
(``x_norm_clstoken``, ``pooler_output``), which gives the Jacobian two structural null directions. Positions are an
axial rotary embedding of queries and keys, so that any image size is as good as 224 pixels. Keys have no bias.

The weights are under the DINOv3 License, which is no open-source one: it is accepted on the hub before they are
fetched, and asks that it be passed on with what is derived from them.
"""

from __future__ import annotations

from typing import Any

from jepa_jax.encoders.specs import EncoderSpec, ViTSpec
from jepa_jax.images.recipe import PreprocessSpec

LICENCE = "DINOv3 License"
REGISTER_TOKENS = 4

_SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 384, "depth": 12, "heads": 6, "mlp_width": 1536},
    "small-plus": {"width": 384, "depth": 12, "heads": 6, "mlp_width": 1536, "activation": "swiglu"},
    "base": {"width": 768, "depth": 12, "heads": 12, "mlp_width": 3072},
    "large": {"width": 1024, "depth": 24, "heads": 16, "mlp_width": 4096},
    "huge-plus": {"width": 1280, "depth": 32, "heads": 20, "mlp_width": 5120, "activation": "swiglu"},
    "7b": {"width": 4096, "depth": 40, "heads": 32, "mlp_width": 8192, "activation": "swiglu", "qkv_bias": False},
}

_HUB = {
    "small": "vits16",
    "small-plus": "vits16plus",
    "base": "vitb16",
    "large": "vitl16",
    "huge-plus": "vith16plus",
    "7b": "vit7b16",
}

SATELLITE_MEAN = (0.430, 0.411, 0.296)
SATELLITE_STD = (0.213, 0.156, 0.143)


def dinov3_recipe(image_size: int) -> PreprocessSpec:
    """The picture squeezed to a square, whatever its shape."""
    return PreprocessSpec(resize_shortest=image_size, crop=image_size, interpolation="bilinear", squeeze=True)


def _variant(size: str, *, satellite: bool = False) -> EncoderSpec:
    recipe = dinov3_recipe(224)
    if satellite:
        recipe = PreprocessSpec(224, 224, recipe.interpolation, SATELLITE_MEAN, SATELLITE_STD, squeeze=True)
    return EncoderSpec(
        name=f"dinov3-{size}{'-sat493m' * satellite}",
        family="dinov3",
        vit=ViTSpec(
            **_SIZES[size],
            patch_size=16,
            native_image_size=224,
            norm_eps=1e-5,
            register_tokens=REGISTER_TOKENS,
            layer_scale=True,
            rotary_base=100.0,
            key_bias=False,
        ),
        preprocess=recipe,
        hub_id=f"facebook/dinov3-{_HUB[size]}-pretrain-{'sat493m' if satellite else 'lvd1689m'}",
        licence=LICENCE,
    )


_PUBLISHED = [
    *(_variant(size) for size in _SIZES),
    *(_variant(size, satellite=True) for size in ("large", "7b")),
]

DINOV3 = {spec.name: spec for spec in _PUBLISHED}
"""Every published DINOv3 ViT by name, at the 224-pixel recipe of its model card."""
