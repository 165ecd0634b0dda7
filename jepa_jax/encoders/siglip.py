"""SigLIP and SigLIP 2: the image towers of their fixed-resolution checkpoints.

Sources: Zhai et al. 2023 (arXiv 2303.15343), Tschannen et al. 2025 (arXiv 2502.14786). There is no class token: the
embedding is what a head of attention makes of all tokens (`jepa_jax.layers.attention_pool`; ``pooler_output``, which
is ``get_image_features`` too). It ends in no LayerNorm, and no structural null direction is left. SigLIP compares such
embeddings after division by their length; `load_encoder(..., l2_normalize=True)` gives that, with one null direction.

Both generations have the same architectures and differ in their weights, and mostly in the filter of the resize.
SigLIP 2's NaFlex checkpoints, which take pictures in their own shapes, are another architecture, and not read.
"""

from __future__ import annotations

from typing import Any

from jepa_jax.encoders.specs import EncoderSpec, ViTSpec
from jepa_jax.images.recipe import Interpolation, PreprocessSpec

HALF = (0.5, 0.5, 0.5)

_SHAPES: dict[str, dict[str, Any]] = {
    "base": {"width": 768, "depth": 12, "heads": 12, "mlp_width": 3072},
    "large": {"width": 1024, "depth": 24, "heads": 16, "mlp_width": 4096},
    "so400m": {"width": 1152, "depth": 27, "heads": 16, "mlp_width": 4304},
    "giant-opt": {"width": 1536, "depth": 40, "heads": 16, "mlp_width": 6144},
}

_PUBLISHED = {
    "siglip": (
        "base-patch16-224",
        "base-patch16-256",
        "base-patch16-384",
        "base-patch16-512",
        "base-patch16-256-multilingual",
        "large-patch16-256",
        "large-patch16-384",
        "so400m-patch14-224",
        "so400m-patch14-384",
        "so400m-patch16-256-i18n",
    ),
    "siglip2": (
        "base-patch32-256",
        "base-patch16-224",
        "base-patch16-256",
        "base-patch16-384",
        "base-patch16-512",
        "large-patch16-256",
        "large-patch16-384",
        "large-patch16-512",
        "giant-opt-patch16-256",
        "giant-opt-patch16-384",
        "so400m-patch14-224",
        "so400m-patch14-384",
        "so400m-patch16-256",
        "so400m-patch16-384",
        "so400m-patch16-512",
    ),
}
"""Generations, and the names of their checkpoints on the hub behind ``google/GENERATION-``."""

_NAMES = {"base-patch16-256-multilingual": "siglip-base-multilingual", "so400m-patch16-256-i18n": "siglip-so400m-i18n"}
"""Names that are shorter here."""

_FILTERS: dict[str, Interpolation] = {"siglip": "bicubic", "siglip2": "bilinear"}
"""What the checkpoints' own ``preprocessor_config.json`` say; a folder is read with the recipe that lies in it."""


def siglip_recipe(image_size: int, interpolation: Interpolation = "bicubic") -> PreprocessSpec:
    """SigLIP's preprocessing: the whole picture squeezed to the square."""
    return PreprocessSpec(image_size, image_size, interpolation, mean=HALF, std=HALF, squeeze=True)


def siglip_vit(image_size: int, patch_size: int, **shape: Any) -> ViTSpec:
    """SigLIP's architecture; what no whole patch covers of an image is left out of it, as its convolution does."""
    described: dict[str, Any] = {"activation": "gelu_tanh", "position_resize": "bicubic"} | shape
    return ViTSpec(
        **described,
        patch_size=patch_size,
        native_image_size=image_size,
        class_token=False,
        pooling="attention",
        cut_edges=True,
    )


def _encoder(generation: str, checkpoint: str) -> EncoderSpec:
    size, patch, image = checkpoint.removesuffix("-multilingual").removesuffix("-i18n").rsplit("-", 2)
    return EncoderSpec(
        name=_NAMES.get(checkpoint, f"{generation}-{checkpoint}"),
        family="siglip",
        vit=siglip_vit(int(image), int(patch.removeprefix("patch")), **_SHAPES[size]),
        preprocess=siglip_recipe(int(image), _FILTERS[generation]),
        hub_id=f"google/{generation}-{checkpoint}",
        licence="Apache-2.0",
    )


SIGLIP = {
    spec.name: spec
    for generation, checkpoints in _PUBLISHED.items()
    for spec in (_encoder(generation, checkpoint) for checkpoint in checkpoints)
}
"""Every published image tower of fixed resolution by name."""
