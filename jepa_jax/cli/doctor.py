"""`jepa-jax doctor`: can this installation be trusted?"""

from __future__ import annotations

import typer

from jepa_jax.cli.app import app, console


@app.command()
def doctor() -> None:
    """Check that the installed backend computes right numbers, and say what is installed."""
    from jepa_jax.cli.reporting import print_diagnosis

    if not print_diagnosis(console):
        raise typer.Exit(1)
