"""`jepa-jax evaluate`: in-set against out-sets."""

from __future__ import annotations

import contextlib
import json
from typing import Annotated

import typer

from jepa_jax.cli.app import app, console
from jepa_jax.cli.encoder_options import NullDirections

SET = "A directory of jepa-jax score, or singular values as .npy, .npz or .parquet; NAME=PATH gives it a name."


@app.command()
def evaluate(
    in_set: Annotated[str, typer.Option("--in", help=f"The in-set. {SET}")],
    out: Annotated[list[str], typer.Option("--out", help="An out-set; may be repeated, or list more after it.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[OUT]...", help="Further out-sets.")] = None,
    reference: Annotated[str | None, typer.Option(help="Images like the in-set's, to fit detectors on.")] = None,
    reference_share: Annotated[
        float, typer.Option(min=0, max=1, help="Without --reference: this share of the in-set; 0 for none.")
    ] = 0.5,
    drop_overlap: Annotated[
        bool, typer.Option(help="Leave out judged images that are in the reference, instead of refusing.")
    ] = False,
    images: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: where a set's images are, if not where they were scored.")
    ] = None,
    complexity_images: Annotated[
        int, typer.Option(min=0, help="Images per set to measure complexity on; 0 for none.")
    ] = 2000,
    null_directions: NullDirections = 0,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples, for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and the bootstrap.")] = 0,
    partial: Annotated[bool, typer.Option(help="Take unfinished jobs as they are.")] = False,
    output: Annotated[
        str | None, typer.Option(help="Directory for evaluation.json, .parquet and .md; by default only shown.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json instead of tables.")] = False,
) -> None:
    """Measure how well scores and classic detectors tell the in-set from other sets."""
    from jepa_jax.analysis.evaluation import Options
    from jepa_jax.analysis.evaluation import evaluate as judge
    from jepa_jax.analysis.evaluation_output import to_dict, write
    from jepa_jax.analysis.showing import print_evaluation
    from jepa_jax.extras import require_packages
    from jepa_jax.provenance import origin
    from jepa_jax.scored.image_reader import ImageReader
    from jepa_jax.scored.reading import named_path, read_table

    require_packages("analysis", ("sklearn", "scipy"))

    def read(text: str):
        name, path = named_path(text)
        return read_table(path, name=name, null_directions=null_directions, partial=partial)

    outs = [*out, *(more or [])]
    options = Options(
        reference_share=reference_share,
        drop_overlap=drop_overlap,
        complexity_images=complexity_images,
        resamples=resamples,
        seed=seed,
    )
    tables = [read(text) for text in (in_set, *outs)]
    with contextlib.nullcontext() if as_json else console.status("evaluating"):
        result = judge(
            tables[0],
            tables[1:],
            reference=read(reference) if reference else None,
            options=options,
            readers=ImageReader.all_of(tables, images or []),
        )
    context = origin() | {
        "in": in_set,
        "out": outs,
        "reference": reference,
        "null_directions": null_directions,
        "reference_share": reference_share,
        "resamples": resamples,
        "seed": seed,
    }
    if as_json:
        print(json.dumps(to_dict(result) | {"context": context}, indent=2))
    else:
        print_evaluation(console, result)
    if output is not None:
        folder = write(result, output, context)
        if not as_json:
            console.print(f"Written: {folder}/evaluation.json, .parquet, .md", soft_wrap=True)
