"""`jepa-jax demo`: the main job on bundled photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jepa_jax.cli.app import app, console


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
