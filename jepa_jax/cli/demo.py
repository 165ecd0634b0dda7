"""`jepa-jax demo`: the main job on bundled photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jepa_jax.cli.app import app, console


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="New directory for the demo's table.")] = Path("jepa-jax-demo"),
    model: Annotated[str, typer.Option(help="Which encoder scores; jepa-tiny ships with this package.")] = "jepa-tiny",
) -> None:
    """Score scikit-image's bundled photographs, offline."""
    from jepa_jax.demo import run_demo

    run_demo(console, output, model)
