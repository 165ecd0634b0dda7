"""`jepa-jax calibrate`: what each way to a score costs and loses, on the user's own images."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from jepa_jax.cli.app import app, console, errors
from jepa_jax.cli.encoder_options import Frames, FrameStep, ImageSize, Model
from jepa_jax.images.sources import accepted
from jepa_jax.numerics.precision import LEVELS, Precision, check_precision

if TYPE_CHECKING:
    from jepa_jax.costs.comparison import Comparison


@app.command()
def calibrate(
    sources: Annotated[list[str], typer.Argument(metavar="INPUT...", help=f"Images: {accepted()}.")],
    model: Model = None,
    image_size: ImageSize = None,
    frames: Frames = None,
    frame_step: FrameStep = None,
    images: Annotated[int, typer.Option(help="Draw N images at random, and score each by every method.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Level to compare; may be repeated; by default float32 and all that the device has units for."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode; 0 decodes in a thread.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Compare exact scores at every precision with amortised ones, on your images: speed, ranks, errors, recall."""
    from jepa_jax.costs.comparison import compare_methods
    from jepa_jax.encoders.shipped import DEFAULT
    from jepa_jax.images.sources import open_sources
    from jepa_jax.loading import load_encoder

    for level in precision or ():
        check_precision(level)
    levels: list[Precision] = [level for level in LEVELS if level in (precision or ())]
    encoder = load_encoder(model or DEFAULT, image_size=image_size, frames=frames, frame_step=frame_step)
    source = open_sources(sources, None)
    with (errors if as_json else console).status("beginning") as status:
        found = compare_methods(
            encoder, source, images, seed=seed, levels=levels, workers=workers, doing=status.update
        )
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        _print(found)


def _print(found: Comparison) -> None:
    from jepa_jax.costs.comparison import ESCALATED

    recalls = [f"at {share:.0%}" for share in ESCALATED]
    table = Table("method", "precision", "img/s", "Spearman", "error, nats", "largest", *recalls, box=None)
    for row in found.methods:
        table.add_row(
            row.method,
            row.precision,
            f"{row.images_per_second:.4g}",
            f"{row.spearman:.4f}",
            f"{row.median_error:.2g}",
            f"{row.largest_error:.2g}",
            *(f"{value:.0%}" for value in row.recall),
        )
    console.print(table)
    failed = f", {found.failed} failed" if found.failed else ""
    console.print(
        f"{found.images:,} images{failed}; decoding alone {found.decoding:.4g} img/s. Errors (median and largest) "
        "against exact scores in float32; amortised scores are of images that had no part in the fit. "
        f"At 2, 5, 10%: share of the {found.rarest} images with the lowest exact scores that lie that low.",
        soft_wrap=True,
        highlight=False,
    )
