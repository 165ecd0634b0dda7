"""`jepa-jax train`: a config to an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jepa_jax.cli.app import app, console
from jepa_jax.paths import to_path


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Python file with a CONFIG, or a shipped name.")],
    data: Annotated[Path, typer.Option(help="The examples: x_train of an .npz file.")],
    output: Annotated[Path, typer.Option(help="Directory of the run; an unfinished run there is resumed.")],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the whole run; by default the config's own number.")
    ] = None,
) -> None:
    """Train an encoder by self-supervision; the same command goes on where a killed run stopped."""
    from jepa_jax.extras import require_packages

    require_packages("train")
    from jepa_jax.training.command import run_training

    run_training(console, config, data, to_path(output), steps)
