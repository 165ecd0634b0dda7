"""V-JEPA 2: ViT-L/16, ViT-H/16 and ViT-g/16 on clips of 64 frames at 256 pixels, ViT-g/16 at 384 pixels too.

Source: Assran et al. 2025 (arXiv 2506.09985). A patch is a tubelet, two frames of 16 x 16 pixels; positions are a
rotary embedding along time, rows and columns (`jepa_jax.layers.tubelet_rotary`). There is no class token.

**What is pooled.** The embedding is the mean over all tokens, of all times and places, after the final LayerNorm. The
published evaluations put an attentive probe on the frozen tokens, trained with labels for each task: weights that are
no part of the encoder. The mean over normalised tokens needs none, is how the same authors' I-JEPA is evaluated, and
weighs every place and time alike. It leaves the Jacobian one structural null direction. The predictor is used in
training alone.

**Which frames.** 64 frames, every second one, from the first on (0, 2, ... 126): those of the authors' demonstration.
The processor of `transformers` takes frames as they are handed to it, and chooses none; the authors' training and
evaluations draw random windows, at steps that differ by data set. Other numbers of frames work as well, 16 being that
of the first phase of training, and take far less: time is a position like any other.
"""

from __future__ import annotations

from typing import Any

from jepa_jax.encoders.specs import EncoderSpec, ViTSpec
from jepa_jax.images.recipe import PreprocessSpec

FRAMES = 64
FRAME_STEP = 2
TUBELET = 2
ROTARY_BASE = 10000.0

_SIZES: dict[str, dict[str, Any]] = {
    "large": {"width": 1024, "depth": 24, "heads": 16, "mlp_width": 4096},
    "huge": {"width": 1280, "depth": 32, "heads": 16, "mlp_width": 5120},
    "giant": {"width": 1408, "depth": 40, "heads": 22, "mlp_width": 6144},
}


def resized(crop: int) -> int:
    """What the shorter side is resized to before a crop of so many pixels, as `transformers` computes it."""
    return int(crop * 256 / 224)


def vjepa2_recipe(image_size: int, frames: int = FRAMES) -> PreprocessSpec:
    """The authors' preprocessing of evaluations: shorter side to 8/7 of the image size, then the middle square."""
    return PreprocessSpec(
        resize_shortest=resized(image_size),
        crop=image_size,
        interpolation="bilinear",
        frames=frames,
        frame_step=FRAME_STEP,
    )


def _variant(size: str, hub: str, licence: str, image_size: int = 256) -> EncoderSpec:
    return EncoderSpec(
        name=f"vjepa2-{size}{'' if image_size == 256 else f'-{image_size}'}",
        family="vjepa2",
        vit=ViTSpec(
            **_SIZES[size],
            patch_size=16,
            native_image_size=image_size,
            class_token=False,
            pooling="mean_patches",
            rotary_base=ROTARY_BASE,
            tubelet=TUBELET,
        ),
        preprocess=vjepa2_recipe(image_size),
        hub_id=f"facebook/vjepa2-{hub}-fpc64-{image_size}",
        licence=licence,
    )


_PUBLISHED = [
    _variant("large", "vitl", "MIT"),
    _variant("huge", "vith", "MIT or Apache-2.0"),  # the hub's page says which
    _variant("giant", "vitg", "Apache-2.0"),
    _variant("giant", "vitg", "Apache-2.0", 384),
]

VJEPA2 = {spec.name: spec for spec in _PUBLISHED}
"""Every published V-JEPA 2 encoder by name."""
