"""Every encoder that is known by name."""

from __future__ import annotations

import difflib

from jepa_jax.encoders.clip import CLIP
from jepa_jax.encoders.dinov2 import DINOV2, WEB_DINO
from jepa_jax.encoders.dinov3 import DINOV3
from jepa_jax.encoders.ijepa import IJEPA
from jepa_jax.encoders.shipped import SHIPPED
from jepa_jax.encoders.siglip import SIGLIP
from jepa_jax.encoders.specs import EncoderSpec
from jepa_jax.encoders.timm import TIMM
from jepa_jax.encoders.vjepa2 import VJEPA2
from jepa_jax.errors import ArgumentError

ENCODERS: dict[str, EncoderSpec] = {
    **SHIPPED,
    **DINOV2,
    **WEB_DINO,
    **DINOV3,
    **IJEPA,
    **VJEPA2,
    **CLIP,
    **SIGLIP,
    **TIMM,
}
"""Name to spec, in the order that `jepa-jax models` lists them."""


def find_spec(name: str) -> EncoderSpec:
    """The spec of a known name."""
    if name in ENCODERS:
        return ENCODERS[name]
    close = difflib.get_close_matches(name, ENCODERS, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known names: {', '.join(ENCODERS)}."
    raise ArgumentError(f"model {name!r} is unknown; {hint}")
