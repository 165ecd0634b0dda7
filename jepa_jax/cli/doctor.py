"""`jepa-jax doctor`: can this installation be trusted?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from jepa_jax.cli.app import app, console


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object instead of tables.")] = False,
) -> None:
    """Check that the installed backend computes right numbers, and say what is installed.

    Ends with status 1 where it does not.
    """
    from jepa_jax.cli.reporting import diagnosis, print_diagnosis

    found = diagnosis()
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_diagnosis(console, found)
    if not found["trusted"]:
        raise typer.Exit(1)
