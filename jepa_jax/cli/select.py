"""`jepa-jax select`: a scored set to a list of images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jepa_jax.cli.app import app, console

if TYPE_CHECKING:
    from jepa_jax.analysis.selection import Selection


class SideChoice(StrEnum):
    """Values of --side."""

    low = "low"
    high = "high"


@app.command()
def select(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Output of jepa-jax score.")],
    output: Annotated[Path, typer.Option(help="Directory for keys.txt, selection.parquet and selection.json.")],
    between: Annotated[
        tuple[float, float] | None, typer.Option(help="Keep scores between two quantiles, such as 0.05 1.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="List what is unusual against this scored reference set, at --rate.")
    ] = None,
    sample: Annotated[int | None, typer.Option(help="Draw so many images, weights exp(-score / temperature).")] = None,
    rarest: Annotated[int, typer.Option(help="The k rarest, of each group.")] = 0,
    typical: Annotated[int, typer.Option(help="The k most typical, of each group.")] = 0,
    rate: Annotated[float, typer.Option(help="With --against: false-alarm rate.")] = 0.05,
    false_discovery: Annotated[
        bool, typer.Option(help="With --against: --rate is the share of false alarms among the listed.")
    ] = False,
    side: Annotated[SideChoice, typer.Option(help="With --against: which scores are unusual.")] = SideChoice.low,
    keep: Annotated[bool, typer.Option(help="With --against: list the images that raise no alarm instead.")] = False,
    temperature: Annotated[
        float | None, typer.Option(help="With --sample, nats; by default such that half of the images count.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="'folder', a column, or a pattern with a bracket over the keys.")
    ] = None,
    column: Annotated[str, typer.Option(help="The score that decides.")] = "score",
    seed: Annotated[int, typer.Option(min=0, help="Of draws and ties.")] = 0,
    partial: Annotated[bool, typer.Option(help="Take an unfinished job as it is.")] = False,
) -> None:
    """Choose images of a scored set by one rule: --between, --against, --sample, or --rarest and --typical."""
    from jepa_jax.analysis import selection
    from jepa_jax.analysis.groups import group_names
    from jepa_jax.analysis.packages import require_packages
    from jepa_jax.analysis.reference import ReferenceSplit
    from jepa_jax.analysis.selection_output import write
    from jepa_jax.analysis.table import read_table
    from jepa_jax.errors import ArgumentError

    require_packages()
    given = [between is not None, against is not None, sample is not None, bool(rarest or typical)]
    if sum(given) != 1:
        raise ArgumentError(
            "give exactly one rule: --between LOW HIGH, --against REFERENCE, --sample COUNT, --rarest or --typical K."
        )
    table = read_table(directory, partial=partial)
    selection.require_column(table, column)
    scores = table.scores[column]
    groups = group_names(table, group_by) if group_by or rarest or typical else None
    chosen: Selection
    if between is not None:
        chosen = selection.by_quantile(scores, *between)
    elif against is not None:
        chosen = selection.by_p_value(
            table,
            ReferenceSplit.of(read_table(against)),
            rate,
            column=column,
            side=side.value,
            false_discovery=false_discovery,
            keep=keep,
            seed=seed,
        )
    elif sample is not None:
        chosen = selection.by_density(scores, sample, temperature, seed)
    else:
        chosen = selection.by_extremes(scores, rarest=rarest, typical=typical, groups=groups)
    context: dict[str, Any] = {"directory": directory, "against": against, "column": column, "group_by": group_by}
    folder = write(chosen, table, output, groups=groups, context=context)
    console.print(
        f"{len(chosen.rows):,} of {len(table):,} images: {folder}/keys.txt, selection.parquet", soft_wrap=True
    )
    for name, value in chosen.rule.items():
        console.print(f"  {name}: {value}", markup=False, soft_wrap=True)
