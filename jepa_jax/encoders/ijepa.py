"""I-JEPA: ViT-H/14 and ViT-H/16 at 448 pixels (ImageNet-1k), ViT-H/14 and ViT-g/16 (ImageNet-22k).

Source: Assran et al. 2023 (arXiv 2301.08243). There is no class token: the embedding is the mean of the
patch tokens after the final LayerNorm, as in the paper's evaluation, which leaves the Jacobian one structural
null direction. Positions are fixed sines and cosines, stored like any other weight.

Two releases exist under these names, and they differ:

* the authors' ``.pth.tar`` files, whose ``target_encoder`` (the moving average, which the paper evaluates) is
  read here. The recipe below is theirs: normalisation as in pretraining, and the cut of their linear probe.
* the Hugging Face folders, which `transformers` made from ``encoder`` (the network that the average follows).
  Their own ``preprocessor_config.json`` squeezes the picture to a square and normalises by 0.5; a folder is
  read with the recipe that lies in it.
"""

from __future__ import annotations

from jepa_jax.encoders.specs import EncoderSpec, ViTSpec
from jepa_jax.images.recipe import PreprocessSpec


def _encoder(name: str, hub_id: str, *, width: int, depth: int, mlp_width: int, patch: int, image: int) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        family="ijepa",
        vit=ViTSpec(
            width=width,
            depth=depth,
            heads=16,
            patch_size=patch,
            native_image_size=image,
            mlp_width=mlp_width,
            class_token=False,
            pooling="mean_patches",
        ),
        preprocess=ijepa_recipe(image),
        hub_id=hub_id,
        licence="CC-BY-NC-4.0",
    )


def ijepa_recipe(image_size: int) -> PreprocessSpec:
    """The authors' preprocessing: the shorter side to 8/7 of the image size, then the middle square."""
    return PreprocessSpec(interpolation="bilinear").at_image_size(image_size)


def _huge(name: str, hub_id: str, *, patch: int, image: int) -> EncoderSpec:
    return _encoder(name, hub_id, width=1280, depth=32, mlp_width=5120, patch=patch, image=image)


def _giant(name: str, hub_id: str, *, patch: int, image: int) -> EncoderSpec:
    return _encoder(name, hub_id, width=1408, depth=40, mlp_width=6144, patch=patch, image=image)


_PUBLISHED = [
    _huge("ijepa-vith14-1k", "facebook/ijepa_vith14_1k", patch=14, image=224),
    _huge("ijepa-vith14-22k", "facebook/ijepa_vith14_22k", patch=14, image=224),
    _huge("ijepa-vith16-448-1k", "facebook/ijepa_vith16_1k", patch=16, image=448),
    _giant("ijepa-vitg16-22k", "facebook/ijepa_vitg16_22k", patch=16, image=224),
]

IJEPA = {spec.name: spec for spec in _PUBLISHED}
"""Every published I-JEPA encoder by name."""
