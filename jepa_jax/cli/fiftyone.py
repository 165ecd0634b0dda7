"""`jepa-jax fiftyone`: a scored set to a folder that FiftyOne loads."""

from __future__ import annotations

from typing import Annotated

import typer

from jepa_jax.cli.app import app, console


@app.command()
def fiftyone(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Output of jepa-jax score.")],
    output: Annotated[str, typer.Option(help="A new directory, in FiftyOne's own layout.")],
    name: Annotated[str | None, typer.Option(help="Name of the data set; by default that of the output.")] = None,
    images: Annotated[str | None, typer.Option(metavar="PATH", help="Where the images are, if they moved.")] = None,
) -> None:
    """Write a scored set for FiftyOne: scores, errors and embeddings as fields, failures as tags. Nothing is copied.

    FiftyOne need not be installed here. Images that are no file of their own, as in archives, are left out.
    """
    from jepa_jax.images.sources import open_source
    from jepa_jax.scored.scored_images import ScoredImages

    scored = ScoredImages.read(directory, None if images is None else open_source(images))
    written = scored.to_fiftyone(output, name)
    console.print(f"{written.samples:,} samples in {written.directory}. In Python:", markup=False, soft_wrap=True)
    console.print(f"  {written.command}", markup=False, soft_wrap=True, highlight=False)
    if written.left_out:
        console.print(
            f"Note: {written.left_out:,} images are left out: they are no file of their own on this machine.",
            soft_wrap=True,
        )
