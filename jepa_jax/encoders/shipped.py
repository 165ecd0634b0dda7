"""Encoders that this package carries along: small, trained by itself, there without a network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jepa_jax.encoders.checkpoint import read_spec, restore_encoder
from jepa_jax.encoders.encoder import Encoder
from jepa_jax.encoders.specs import EncoderSpec

DEFAULT = "jepa-tiny"
"""What is used where no encoder is named."""

ABOUT_DEFAULT = (
    "jepa-tiny is a small ViT that this package trained on CIFAR-10 (32 pixels). It makes all work offline; for "
    "photographs use a published encoder: --model dinov2-small."
)


def shipped_directory(name: str) -> Path:
    """Where a shipped encoder's checkpoint, training log and model card lie."""
    return Path(str(resources.files("jepa_jax.encoders"))) / name.replace("-", "_")


SHIPPED: dict[str, EncoderSpec] = {
    DEFAULT: read_spec(shipped_directory(DEFAULT)),
}
"""Name to spec."""


def load_shipped(name: str) -> Encoder:
    """Read a shipped encoder; its digest is checked."""
    return restore_encoder(shipped_directory(name))
