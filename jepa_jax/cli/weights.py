"""`jepa-jax convert`, `export` and `models`: encoders in and out."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jepa_jax.cli.app import app, console


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


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of transformers or OpenCLIP, or state dict file.")],
    output: Annotated[Path, typer.Option(help="New directory for the checkpoint.")],
    model: Annotated[
        str | None, typer.Option(help="Name of the encoder; needed for a file that nothing describes.")
    ] = None,
    format: Annotated[FormatChoice | None, typer.Option(help="Format of the source; by default detected.")] = None,
    dtype: Annotated[
        DtypeChoice, typer.Option(help="Dtype of stored kernels; norms, biases, tokens and positions stay in float32.")
    ] = DtypeChoice.float32,
    verbose: Annotated[bool, typer.Option(help="List every tensor.")] = False,
) -> None:
    """Convert published weights into a checkpoint that loads fast and is pinned by its digest."""
    from convert_weights.convert import convert as write
    from convert_weights.convert import read_source
    from jepa_jax.cli.reporting import print_conversion

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
def models(
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON list, an object for each, instead of the table.")
    ] = False,
) -> None:
    """List every encoder that is known by name."""
    from jepa_jax.cli.models import known_models, print_models

    if as_json:
        print(json.dumps(known_models(), indent=2))
    else:
        print_models(console)
