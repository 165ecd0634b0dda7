"""The CLIP family's image towers: OpenAI's, OpenCLIP's (LAION-2B) and MetaCLIP's (version 1).

Sources: Radford et al. 2021 (arXiv 2103.00020), Cherti et al. 2022 (arXiv 2212.07143), Xu et al. 2023 (arXiv
2309.16671). The embedding is the class token after the final LayerNorm, projected without bias onto fewer
dimensions: no structural null direction is left. CLIP compares such embeddings after division by their
length; `load_encoder(..., l2_normalize=True)` gives that, with one null direction.
"""

from __future__ import annotations

from typing import Any

from jepa_jax.encoders.specs import Activation, EncoderSpec, PositionResize, ViTSpec
from jepa_jax.images.recipe import PreprocessSpec

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)

_SHAPES: dict[str, dict[str, Any]] = {
    "b32": {"patch_size": 32, "width": 768, "depth": 12, "heads": 12, "mlp_width": 3072, "projection": 512},
    "b16": {"patch_size": 16, "width": 768, "depth": 12, "heads": 12, "mlp_width": 3072, "projection": 512},
    "l14": {"patch_size": 14, "width": 1024, "depth": 24, "heads": 16, "mlp_width": 4096, "projection": 768},
    "h14": {"patch_size": 14, "width": 1280, "depth": 32, "heads": 16, "mlp_width": 5120, "projection": 1024},
    "bigg14": {"patch_size": 14, "width": 1664, "depth": 48, "heads": 16, "mlp_width": 8192, "projection": 1280},
}


def clip_recipe(image_size: int) -> PreprocessSpec:
    """CLIP's preprocessing: the shorter side to the image size, then the middle square."""
    return PreprocessSpec(resize_shortest=image_size, crop=image_size, mean=CLIP_MEAN, std=CLIP_STD)


def _encoder(
    name: str,
    hub_id: str | None,
    shape: str,
    *,
    activation: Activation,
    position_resize: PositionResize,
    licence: str,
    image_size: int = 224,
    preprocess: PreprocessSpec | None = None,
) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        family="clip",
        vit=ViTSpec(
            **_SHAPES[shape],
            native_image_size=image_size,
            activation=activation,
            norm_eps=1e-5,
            patch_bias=False,
            pre_norm=True,
            position_resize=position_resize,
        ),
        preprocess=preprocess or clip_recipe(image_size),
        hub_id=hub_id,
        licence=licence,
    )


def _openai(name: str, hub_id: str, shape: str, image_size: int = 224) -> EncoderSpec:
    # OpenAI's own code knows no other size than the native one; "bicubic" is the way of transformers.
    return _encoder(
        name,
        hub_id,
        shape,
        activation="quick_gelu",
        position_resize="bicubic",
        licence="MIT",
        image_size=image_size,
    )


def _openclip(name: str, hub_id: str, shape: str, preprocess: PreprocessSpec | None = None) -> EncoderSpec:
    return _encoder(
        name,
        hub_id,
        shape,
        activation="gelu",
        position_resize="bicubic_antialias",
        licence="MIT",
        preprocess=preprocess,
    )


def _metaclip(name: str, hub_id: str | None, shape: str) -> EncoderSpec:
    # Trained with OpenCLIP's code, but with OpenAI's activation.
    return _encoder(
        name,
        hub_id,
        shape,
        activation="quick_gelu",
        position_resize="bicubic_antialias",
        licence="CC-BY-NC-4.0",
    )


_PUBLISHED = [
    _openai("clip-b32", "openai/clip-vit-base-patch32", "b32"),
    _openai("clip-b16", "openai/clip-vit-base-patch16", "b16"),
    _openai("clip-l14", "openai/clip-vit-large-patch14", "l14"),
    _openai("clip-l14-336", "openai/clip-vit-large-patch14-336", "l14", image_size=336),
    _openclip("openclip-b32-laion2b", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "b32"),
    _openclip("openclip-b16-laion2b", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "b16"),
    _openclip("openclip-h14-laion2b", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "h14"),
    _openclip("openclip-bigg14-laion2b", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "bigg14"),
    _openclip(
        "openclip-l14-laion2b",
        "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
        "l14",
        PreprocessSpec(resize_shortest=224, crop=224, mean=HALF, std=HALF),  # the one that was trained so
    ),
    _metaclip("metaclip-b32-400m", "facebook/metaclip-b32-400m", "b32"),
    _metaclip("metaclip-b16-400m", "facebook/metaclip-b16-400m", "b16"),
    _metaclip("metaclip-l14-400m", "facebook/metaclip-l14-400m", "l14"),
    _metaclip("metaclip-b32-fullcc2.5b", "facebook/metaclip-b32-fullcc2.5b", "b32"),
    _metaclip("metaclip-b16-fullcc2.5b", "facebook/metaclip-b16-fullcc2.5b", "b16"),
    _metaclip("metaclip-l14-fullcc2.5b", "facebook/metaclip-l14-fullcc2.5b", "l14"),
    _metaclip("metaclip-h14-fullcc2.5b", "facebook/metaclip-h14-fullcc2.5b", "h14"),
    _metaclip("metaclip-bigg14-fullcc2.5b", None, "bigg14"),  # published as an OpenCLIP file alone
]

CLIP = {spec.name: spec for spec in _PUBLISHED}
"""Every published CLIP image tower by name."""
