"""Options by which commands name an encoder and its input; each means the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option(help="Known name, converted directory, Hugging Face folder, or hub id; by default jepa-tiny."),
]
ImageSize = Annotated[int | None, typer.Option(help="Side of the input, pixels; by default the encoder's own.")]
Frames = Annotated[
    int | None, typer.Option(min=1, help="Of a clip, where the encoder takes clips; by default as published.")
]
Layers = Annotated[
    list[int] | None,
    typer.Option(help="Score a block's own output as well: 1 is the first block, -1 the last; may be repeated."),
]
FrameStep = Annotated[int | None, typer.Option(min=1, help="A clip has every so many of a video's frames.")]
