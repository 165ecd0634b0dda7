"""`jepa-jax plan`: what scoring would take, without weights or data."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from jepa_jax.cli.app import app, console
from jepa_jax.cli.score import PrecisionChoice


class ModeChoice(StrEnum):
    """Values of --mode."""

    auto = "auto"
    forward = "forward"
    reverse = "reverse"


class EngineChoice(StrEnum):
    """Values of --engine."""

    auto = "auto"
    rules = "rules"
    generic = "generic"


@app.command()
def plan(
    model: Annotated[
        str, typer.Option(help="Known name, converted directory, Hugging Face folder, or hub id.")
    ] = "jepa-tiny",
    image_size: Annotated[int | None, typer.Option(help="Input side in pixels, a multiple of the patch size.")] = None,
    precision: Annotated[PrecisionChoice, typer.Option(help="Of the scores.")] = PrecisionChoice.float32,
    memory: Annotated[
        float | None, typer.Option(help="GiB that scoring may take; by default what the device has.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per step of a process.")] = None,
    score_only: Annotated[bool, typer.Option("--score-only", help="As of score: no eigensolver.")] = False,
    mode: Annotated[ModeChoice, typer.Option(help="Of the Jacobian.")] = ModeChoice.auto,
    engine: Annotated[
        EngineChoice, typer.Option(help="Layer rules, or JAX's own differentiation.")
    ] = EngineChoice.auto,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile as well: the time it takes, and XLA's own figure of memory.")
    ] = False,
) -> None:
    """Print what the memory planner would do: images and rows at a time, bytes by part, arithmetic."""
    from jepa_jax.encoders import ENCODERS
    from jepa_jax.jacobian.plan import JacobianPlan
    from jepa_jax.jobs.runner import default_batch_size
    from jepa_jax.loading import load_encoder
    from jepa_jax.planning import plan_scoring
    from jepa_jax.reporting import print_plan

    spec = ENCODERS[model] if model in ENCODERS else load_encoder(model).spec
    spec = spec if image_size is None else spec.at_image_size(image_size)
    planned = plan_scoring(
        spec,
        batch_size or default_batch_size(spec),
        JacobianPlan(mode.value, engine.value, precision.value),
        spectrum=not score_only,
        memory=None if memory is None else int(memory * 2**30),
        compiled=compile,
        report=lambda message: console.print(message, soft_wrap=True, markup=False),
    )
    print_plan(console, planned, score_only)
