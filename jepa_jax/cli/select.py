"""`jepa-jax select`: a scored set to a list of images."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jepa_jax.cli.app import app, console
from jepa_jax.cli.encoder_options import NullDirections

if TYPE_CHECKING:
    from jepa_jax.analysis.selection import Selection


RATE = 0.05
"""False-alarm rate where none is given."""


class SideChoice(StrEnum):
    """Values of --side."""

    low = "low"
    high = "high"


@app.command()
def select(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Output of jepa-jax score.")],
    output: Annotated[str, typer.Option(help="Directory for keys.txt, selection.parquet and selection.json.")],
    between: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Keep scores between two quantiles: 0.05 1 leaves out the rarest 5%."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="List what is unusual against this scored reference set, at --rate.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="Draw N images evenly over density: weights exp(-score / temperature).")
    ] = None,
    rarest: Annotated[
        int, typer.Option(help="The N rarest, of each group (each folder, where there are several).")
    ] = 0,
    typical: Annotated[int, typer.Option(help="The N most typical, of each group.")] = 0,
    rate: Annotated[
        float | None,
        typer.Option(help="False-alarm rate, by default 0.05. It takes 1 / rate reference images."),
    ] = None,
    false_discovery: Annotated[
        bool,
        typer.Option(help="Take --rate as the false discovery rate: the share of false alarms among those listed."),
    ] = False,
    side: Annotated[SideChoice | None, typer.Option(help="Which scores are unusual; by default low.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Nats; by default such that the effective sample size is half of the images."),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="'none', 'folder', a column, or a regular expression over the keys whose first group counts, such as "
            "'^([a-z]+)_'. By default --rarest and --typical go by folder, where there are several that are no "
            "archives; none chooses overall."
        ),
    ] = None,
    column: Annotated[
        str,
        typer.Option(
            help="The score that decides; with --against also dual or dual_one_sided: score and effective rank."
        ),
    ] = "score",
    null_directions: NullDirections = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of draws, and of how ties are broken.")] = 0,
    others: Annotated[bool, typer.Option(help="List all images but the chosen ones instead: what stays.")] = False,
    partial: Annotated[bool, typer.Option(help="Take an unfinished job as it is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print selection.json instead of words.")] = False,
) -> None:
    """Choose images of a scored set by one rule: --between, --against, --sample, or --rarest and --typical.

    The directory gets keys.txt, which `jepa-jax score --keys` reads, selection.parquet with the reason of each choice,
    and selection.json with the rule.
    """
    from jepa_jax.analysis import selection
    from jepa_jax.analysis.dual import DUAL_TESTS
    from jepa_jax.analysis.groups import default_grouping, group_names, grouping
    from jepa_jax.analysis.reference import ReferenceSplit
    from jepa_jax.analysis.selection_output import UNSURE, notes_of, require_new, write
    from jepa_jax.errors import ArgumentError
    from jepa_jax.extras import require_packages
    from jepa_jax.paths import require_named, to_path
    from jepa_jax.scored.reading import read_table

    given = [between is not None, against is not None, sample is not None, bool(rarest or typical)]
    if sum(given) != 1:
        raise ArgumentError(
            "give exactly one rule: --between LOW HIGH, --against REFERENCE, --sample N, --rarest N or --typical N."
        )
    for option, of_rule, rule in (
        (rate, against, "--rate is of --against"),
        (false_discovery or None, against, "--false-discovery is of --against"),
        (side, against, "--side is of --against"),
        (temperature, sample, "--temperature is of --sample"),
    ):
        if option is not None and of_rule is None:
            raise ArgumentError(f"{rule}, and another rule is given: leave it out.")
    if sample is not None or (against is not None and false_discovery):
        require_packages("analysis", ("scipy",))  # sorting asks for nothing
    require_named(output, "output")
    require_new(to_path(output))
    table = read_table(directory, null_directions=null_directions, partial=partial)
    if column in DUAL_TESTS:
        if against is None:
            raise ArgumentError(
                f"column {column!r} compares with a reference: give --against REFERENCE, or another column "
                f"({', '.join(table.scores)})."
            )
    else:
        selection.require_column(table, column)
    scores = table.scores["score" if column in DUAL_TESTS else column]
    groups = group_names(table, group_by) if group_by or rarest or typical else None
    chosen: Selection
    if between is not None:
        chosen = selection.by_quantile(scores, *between)
    elif against is not None:
        chosen = selection.by_p_value(
            table,
            ReferenceSplit.of(read_table(against, null_directions=null_directions)),
            RATE if rate is None else rate,
            column=column,
            side="low" if side is None else side.value,
            false_discovery=false_discovery,
            seed=seed,
        )
    elif sample is not None:
        chosen = selection.by_density(scores, sample, temperature, seed)
    else:
        chosen = selection.by_extremes(scores, rarest=rarest, typical=typical, groups=groups)
    if others:
        chosen = selection.others(chosen, len(table))
    grouped_by = group_by or (default_grouping(table) if rarest or typical else None)
    context: dict[str, Any] = {"directory": directory, "against": against, "column": column, "group_by": grouped_by}
    folder = write(chosen, table, output, groups=groups, context=context)
    if as_json:
        print((folder / "selection.json").read_text().rstrip())
        return
    console.print(
        f"{len(chosen.rows):,} of {len(table):,} images: {folder}/keys.txt, selection.parquet", soft_wrap=True
    )
    for name, value in chosen.rule.items():
        console.print(f"  {name}: {value}", markup=False, soft_wrap=True)
    if rarest or typical:
        said = grouping(table, group_by, groups)
        if grouped_by == "folder" and groups is not None:
            count = " and ".join(str(number) for number in (rarest, typical) if number)
            said = f"{count} of each of {len(set(groups)):,} folders (--group-by none: {count} overall)"
        console.print(f"  grouped: {said}", markup=False, soft_wrap=True)
    elif groups is not None:
        said = f"{grouping(table, group_by, groups)}; recorded, and no part of the rule"
        console.print(f"  grouped: {said}", markup=False, soft_wrap=True)
    for note in notes_of(chosen, table):
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    if (folder / UNSURE).exists():
        console.print(f"Their keys are in {folder}/{UNSURE}, for jepa-jax score --keys.", markup=False, soft_wrap=True)
