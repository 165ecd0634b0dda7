"""`jepa-jax score`: images to a table of scores."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from jepa_jax.cli.app import app, console


class PrecisionChoice(StrEnum):
    """Values of --precision."""

    float32 = "float32"
    float64 = "float64"


class ColumnChoice(StrEnum):
    """Values of --save."""

    singular_values = "singular_values"
    embedding = "embedding"


class PositionChoice(StrEnum):
    """Values of --position-resize."""

    bicubic_offset = "bicubic_offset"
    bicubic = "bicubic"
    bicubic_antialias = "bicubic_antialias"


@app.command()
def score(
    folder: Annotated[str, typer.Argument(metavar="INPUT", help="Folder of images, searched recursively.")],
    output: Annotated[str, typer.Option(help="Directory of the table; an unfinished job there is resumed.")],
    model: Annotated[
        str | None,
        typer.Option(help="Known name, converted directory, Hugging Face folder, or hub id; by default jepa-tiny."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Input side in pixels, a multiple of the patch size.")] = None,
    precision: Annotated[PrecisionChoice, typer.Option(help="Of the scores.")] = PrecisionChoice.float32,
    save: Annotated[list[ColumnChoice] | None, typer.Option(help="Further columns; may be repeated.")] = None,
    position_resize: Annotated[
        PositionChoice | None, typer.Option(help="How position embeddings are resized.")
    ] = None,
    l2_normalize: Annotated[
        bool | None, typer.Option(help="Divide embeddings by their length, as CLIP compares them.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per device step.")] = None,
    shard_size: Annotated[int | None, typer.Option(min=1, help="Records per part of the table.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode images.")] = 2,
) -> None:
    """Score every image of a folder into a Parquet table."""
    from jepa_jax.encoders.shipped import ABOUT_DEFAULT, DEFAULT
    from jepa_jax.jobs import open_source, run_job
    from jepa_jax.loading import load_encoder
    from jepa_jax.reporting import ConsoleProgress, print_summary

    if model is None:
        model = DEFAULT
        console.print(ABOUT_DEFAULT, soft_wrap=True)
    source = open_source(folder)
    encoder = load_encoder(
        model,
        image_size=image_size,
        position_resize=position_resize.value if position_resize else None,
        l2_normalize=l2_normalize,
    )
    left_out = f", {source.left_out} other files left out" if source.left_out else ""
    console.print(f"{len(source.keys):,} images in {folder}{left_out}; {encoder}", soft_wrap=True, markup=False)
    console.print("If it is interrupted, the same command goes on from the last whole part.")
    with ConsoleProgress(console) as progress:
        summary = run_job(
            encoder,
            source,
            output,
            progress,
            precision=precision.value,
            batch_size=batch_size,
            shard_size=shard_size,
            columns=tuple(column.value for column in save or ()),
            workers=workers,
        )
    print_summary(console, summary, output)
