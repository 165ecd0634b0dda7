"""Options by which commands name an encoder and its input; each means the same everywhere."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from jepa_jax.errors import ArgumentError
from jepa_jax.numerics.precision import AskedPrecision

Model = Annotated[
    str | None,
    typer.Option(help="Known name, converted directory, Hugging Face folder, or hub id; by default jepa-tiny."),
]
Precision = Annotated[
    AskedPrecision,
    typer.Option(
        help="Level of the Jacobian's matrix products. auto: float32 on CPUs; elsewhere the fastest level, and images "
        "that may be off by more than a tolerance are scored again."
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Side of the square input in pixels, a multiple of the patch size; by default the encoder's own."
    ),
]
Frames = Annotated[
    int | None, typer.Option(min=1, help="Frames in a clip, for an encoder of clips; by default as published.")
]
Layers = Annotated[
    list[int] | None,
    typer.Option(help="Score a block's own output as well: 1 is the first block, -1 the last; may be repeated."),
]
FrameStep = Annotated[
    int | None, typer.Option(min=1, help="Take every Nth frame of a video for its clip; by default as published.")
]
NullDirections = Annotated[
    int,
    typer.Option(
        min=0, help="For files of spectra: how many of the smallest values are zero by construction (DINOv2: 2)."
    ),
]


def memory_bytes(memory: float | None) -> int | None:
    """What ``--memory`` allows, of GiB.

    Raises:
        ArgumentError: it is no positive number.
    """
    if memory is None:
        return None
    if not 0 < memory < math.inf:
        raise ArgumentError(f"memory={memory} must be a positive number of GiB.")
    return int(memory * 2**30)
