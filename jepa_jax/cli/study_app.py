"""`jepa-jax study`: the group of commands that the studies register with."""

import typer

from jepa_jax.cli.app import app

study = typer.Typer(no_args_is_help=True, help="Experiments of the paper and about it; each writes its figures.")
app.add_typer(study, name="study")
