"""A state dict with timm's names and no ``config.json`` beside it: its encoder is named, and known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convert_weights import timm_folder
from convert_weights.tables import Row
from jepa_jax.encoders import ViTSpec

LEFT_OUT = timm_folder.LEFT_OUT | {"proj.": "the projection that VISReg was trained with"}


def select(contents: Any, path: Path) -> Any:
    """The encoder's state dict, which is the whole file."""
    del path
    return contents


def table(spec: ViTSpec) -> list[Row]:
    """Every parameter, by timm's name."""
    return timm_folder.table(spec)
