"""What is measured on: one architecture with random weights and some pictures, in PyTorch and here alike."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jepa_jax as jj
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec, ViTSpec, find_spec
from jepa_jax.encoders.drawn import GAIN, random_encoder
from jepa_jax.images.natural import natural_pictures
from jepa_jax.jacobian.jacobian import embed_with_nulls
from jepa_jax.numerics.bases import complement_basis
from jepa_jax.provenance import version

TOY = EncoderSpec(
    "toy",
    "dinov2",
    ViTSpec(width=32, depth=2, heads=2, patch_size=14, native_image_size=56, mlp_width=128, layer_scale=True),
    PreprocessSpec(resize_shortest=32, crop=28),
)
"""For the smoke suite: every layer of the real ones, at a size that computes in milliseconds."""


@dataclass(frozen=True)
class Contest:
    """One encoder and some pictures in both frameworks.

    Attributes:
        encoder: ours.
        model: PyTorch's with the same weights, or None where PyTorch is not installed.
        images: [B, H, W, 3], preprocessed.
    """

    encoder: Encoder
    model: Any
    images: np.ndarray

    @property
    def image_size(self) -> int:
        """Side of the pictures, pixels."""
        return self.encoder.spec.image_size

    @functools.cached_property
    def structural_basis(self) -> np.ndarray:
        """Orthonormal columns [K, K - m], float64: what is orthogonal to the first picture's null directions."""
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), self.encoder.params)
            nulls = embed_with_nulls(self.encoder.function, params, jnp.asarray(self.images[0], jnp.float64))[1]
            return np.asarray(complement_basis(nulls))

    def structural_score(self, jacobian: np.ndarray) -> float:
        """Log-volume of the first picture's Jacobian [K, D] without null directions, nats, in float64."""
        rows = self.structural_basis.T @ jacobian.astype(np.float64)
        return float(0.5 * np.linalg.slogdet(rows @ rows.T)[1])


def encoder_spec(model: str) -> EncoderSpec:
    """``toy``, or a known encoder."""
    return TOY if model == "toy" else find_spec(model)


def make_contest(model: str, image_size: int, images: int = 1, *, peers: bool = True) -> Contest:
    """An architecture with random weights, and random pictures.

    Args:
        model: ``toy``, or the known name of a DINOv2.
        image_size: side, pixels.
        images: how many pictures.
        peers: whether PyTorch's model is wanted; without, loading it takes no time.
    """
    spec = encoder_spec(model).at_image_size(image_size)
    pictures = natural_pictures(images, spec.preprocess.resize_shortest)
    if not (peers and version("torch")):
        encoder = random_encoder(spec)
        return Contest(encoder, None, encoder.preprocess(pictures))
    with tempfile.TemporaryDirectory() as folder:
        model = _torch_model(spec.vit, Path(folder))
        encoder = jj.load_encoder(folder, image_size=image_size)
    return Contest(encoder, model, encoder.preprocess(pictures))


def _torch_model(vit: ViTSpec, folder: Path) -> Any:
    """PyTorch's DINOv2 of an architecture, on its best device; its weights are written to a folder."""
    import torch
    from transformers import Dinov2Config, Dinov2Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=vit.width,
        num_hidden_layers=vit.depth,
        num_attention_heads=vit.heads,
        image_size=vit.native_image_size,
        patch_size=vit.patch_size,
        use_swiglu_ffn=vit.activation == "swiglu",
        layerscale_value=1 / GAIN,
    )
    model: Any = Dinov2Model(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(GAIN)
    model.save_pretrained(folder)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
