"""The command line: thin, one function per command."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from jepa_jax.errors import JepaJaxError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="JEPA-SCORE in JAX: data density from the Jacobian spectra of pretrained encoders.",
)
console = Console()
errors = Console(stderr=True)


class PrecisionChoice(StrEnum):
    """Values of --precision."""

    float32 = "float32"
    float64 = "float64"


class ColumnChoice(StrEnum):
    """Values of --save."""

    singular_values = "singular_values"
    embedding = "embedding"


class FormatChoice(StrEnum):
    """Values of --format."""

    huggingface = "huggingface"
    official = "official"
    openclip = "openclip"
    openai = "openai"


class DtypeChoice(StrEnum):
    """Values of --dtype."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class PositionChoice(StrEnum):
    """Values of --position-resize."""

    bicubic_offset = "bicubic_offset"
    bicubic = "bicubic"
    bicubic_antialias = "bicubic_antialias"


def main() -> None:
    """Run the command line; a mistake that the user can mend is one message and exit status 2."""
    try:
        app()
    except JepaJaxError as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        sys.exit(130)
    except OSError as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(1)


@app.command()
def score(
    folder: Annotated[str, typer.Argument(metavar="INPUT", help="Folder of images, searched recursively.")],
    model: Annotated[str, typer.Option(help="Known name, converted directory, Hugging Face folder, or hub id.")],
    output: Annotated[str, typer.Option(help="Directory of the table; an unfinished job there is resumed.")],
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
    from jepa_jax.jobs import open_source, run_job
    from jepa_jax.loading import load_encoder
    from jepa_jax.reporting import ConsoleProgress, print_summary

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


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Hugging Face folder, or state dict file.")],
    output: Annotated[Path, typer.Option(help="New directory for the checkpoint.")],
    model: Annotated[str | None, typer.Option(help="Name of the encoder; needed for a file.")] = None,
    format: Annotated[FormatChoice | None, typer.Option(help="What the source must be; by default detected.")] = None,
    dtype: Annotated[
        DtypeChoice, typer.Option(help="Of the stored kernels; norms, biases, tokens and positions stay in float32.")
    ] = DtypeChoice.float32,
    verbose: Annotated[bool, typer.Option(help="List every tensor.")] = False,
) -> None:
    """Convert published weights into a checkpoint that loads fast and is pinned by its digest."""
    from convert_weights.convert import convert as write
    from convert_weights.convert import read_source
    from jepa_jax.reporting import print_conversion

    read = read_source(source, model, source_format=format.value if format else None, kernel_dtype=dtype.value)
    print_conversion(console, read, write(read, output), output, verbose)


@app.command()
def export(
    checkpoint: Annotated[
        str, typer.Argument(help="Known name, converted directory, Hugging Face folder, or hub id.")
    ],
    output: Annotated[Path, typer.Option(help="New folder.")],
) -> None:
    """Write an encoder as a Hugging Face folder, which transformers reads."""
    from convert_weights.export import export as write
    from jepa_jax.loading import load_encoder

    encoder = load_encoder(checkpoint)
    write(encoder, output)
    console.print(f"{encoder} written to {output}", soft_wrap=True, markup=False)


@app.command()
def models() -> None:
    """List every encoder that is known by name."""
    from jepa_jax.reporting import print_models

    print_models(console)


@app.command()
def doctor() -> None:
    """Check that the installed backend computes right numbers, and say what is installed."""
    from jepa_jax.reporting import print_diagnosis

    if not print_diagnosis(console):
        raise typer.Exit(1)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="New directory for the demo's encoder and table.")] = Path(
        "jepa-jax-demo"
    ),
    seconds: Annotated[int, typer.Option(min=1, help="Training time of the small encoder.")] = 60,
) -> None:
    """Train a very small encoder on drawn shapes, then score scikit-image's bundled photographs with it."""
    from jepa_jax.demo import run_demo

    run_demo(console, output, seconds)
