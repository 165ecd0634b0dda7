"""`jepa-jax study synthetic|controlled|card`: the score against densities that are known, and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jepa_jax.cli.app import console
from jepa_jax.cli.study_app import study

Output = Annotated[Path, typer.Option(help="Directory of the figures: JSON, Markdown and plots.")]


@study.command()
def synthetic(
    output: Output = Path("benchmarks/results/study-synthetic"),
    quick: Annotated[bool, typer.Option(help="Few steps, one seed: does it run?")] = False,
) -> None:
    """Densities in closed form: rank correlation of scores and log p."""
    from jepa_jax.extras import require_packages

    require_packages("study")
    from jepa_jax.studies.synthetic import run_synthetic

    run_synthetic(console, output, quick)


@study.command()
def controlled(
    output: Output = Path("benchmarks/results/study-controlled"),
    quick: Annotated[bool, typer.Option(help="Few steps, one seed: does it run?")] = False,
    cifar10: Annotated[Path | None, typer.Option(help="An .npz of CIFAR-10, for the long-tail part.")] = None,
) -> None:
    """Images whose generating probabilities are set: does the score rank them by frequency?"""
    from jepa_jax.extras import require_packages

    require_packages("study")
    from jepa_jax.studies.controlled import run_controlled

    run_controlled(console, output, quick, cifar10)


@study.command()
def card(
    cifar10: Annotated[Path, typer.Option(help="An .npz of CIFAR-10: x_train, y_train, x_test, y_test.")],
    outliers: Annotated[Path, typer.Option(help="An .npz of uint8 image sets that are not CIFAR-10.")],
    model: Annotated[str, typer.Option(help="The encoder to describe; see jepa-jax score.")] = "jepa-tiny",
    output: Output = Path("benchmarks/results/card-jepa-tiny"),
) -> None:
    """The model card's figures: probes, spread of the embeddings, scores, outlier detection."""
    from jepa_jax.extras import require_packages

    require_packages("study")
    from jepa_jax.studies.card import run_card

    run_card(console, output, model, cifar10, outliers)
