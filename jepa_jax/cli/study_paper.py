"""`jepa-jax study imagenet|ood|eps|views`: the paper's experiments over any encoders and sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jepa_jax.cli.app import console
from jepa_jax.cli.encoder_options import NullDirections
from jepa_jax.cli.study_app import study

SET = "A folder of images, or FILE.npz:ARRAY; NAME=PATH gives it a name."
MODEL = "As for jepa-jax score; may be repeated."

Models = Annotated[list[str], typer.Option("--model", help=MODEL)]
Images = Annotated[int, typer.Option(min=2, help="Images drawn from each set.")]
Size = Annotated[int | None, typer.Option(help="Input side in pixels.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every draw.")]
Output = Annotated[Path, typer.Option(help="Directory of the record.")]


@study.command()
def imagenet(
    data: Annotated[str, typer.Argument(help="A folder with a sub-folder per class, or any folder of images.")],
    model: Models,
    output: Output,
    label: Annotated[str | None, typer.Option("--class", help="Class, by name or number; the paper shows 21.")] = None,
    images: Images = 1000,
    count: Annotated[int, typer.Option(min=1, help="Images at either end.")] = 5,
    image_size: Size = None,
    seed: Seed = 0,
) -> None:
    """Least and most likely images of a class, a row per model, and whether the models agree."""
    from jepa_jax.analysis.report import ReportOptions, build_report
    from jepa_jax.extras import require_packages
    from jepa_jax.loading import load_encoder
    from jepa_jax.studies.paper_imagenet import class_extremes, summarize
    from jepa_jax.studies.paper_record import write_record
    from jepa_jax.studies.paper_sets import read_set

    require_packages()
    chosen = read_set(data, images, label=label, seed=seed)
    encoders = [load_encoder(name, image_size=image_size) for name in model]
    with console.status(f"scoring {len(chosen):,} images"):
        tables = class_extremes(encoders, chosen)
    results, lines = summarize(tables, count, seed)
    page = write_record(output, "imagenet", results, lines)
    shown = ReportOptions(title=f"{chosen.name}: least and most likely", per_shelf=count, most_groups=0)
    readers = {table.name: chosen.reader(encoder) for table, encoder in zip(tables, encoders, strict=True)}
    (output / "imagenet.html").write_text(build_report(tables, shown, readers), encoding="utf-8")
    console.print(f"{page}, and imagenet.html with the pictures", markup=False, soft_wrap=True)


@study.command()
def ood(
    model: Models,
    in_set: Annotated[str, typer.Option("--in", help=f"The in-set. {SET}")],
    out: Annotated[list[str], typer.Option("--out", help="An out-set; may be repeated.")],
    output: Output,
    images: Images = 500,
    image_size: Size = None,
    seed: Seed = 0,
) -> None:
    """Scores of an in-set against other sets, with baselines and the complexity control."""
    from jepa_jax.analysis.evaluation import Options
    from jepa_jax.analysis.report import ReportOptions, build_report
    from jepa_jax.extras import require_packages
    from jepa_jax.loading import load_encoder
    from jepa_jax.studies.paper_ood import in_and_out
    from jepa_jax.studies.paper_record import write_record
    from jepa_jax.studies.paper_sets import read_set

    require_packages()
    sets = [read_set(text, images, seed=seed) for text in (in_set, *out)]
    records, lines = {}, []
    for name in model:
        encoder = load_encoder(name, image_size=image_size)
        with console.status(f"scoring {sum(map(len, sets)):,} images by {encoder.spec.name}"):
            tables, found, page = in_and_out(encoder, sets, Options(seed=seed))
        records[encoder.spec.name] = found
        lines += [*page, ""]
        shown = ReportOptions(title=f"{encoder.spec.name} in and out of its domain")
        readers = {images.name: images.reader(encoder) for images in sets}
        output.mkdir(parents=True, exist_ok=True)
        (output / f"ood-{encoder.spec.name}.html").write_text(build_report(tables, shown, readers), encoding="utf-8")
    console.print(str(write_record(output, "ood", records, lines)), markup=False, soft_wrap=True)


@study.command()
def eps(
    scored: Annotated[str, typer.Argument(help="Output of jepa-jax score with --save singular_values, or spectra.")],
    output: Output,
    out: Annotated[str | None, typer.Option("--out", help="A second set, for an AUROC at every eps.")] = None,
    null_directions: NullDirections = 0,
) -> None:
    """How the paper's clip changes scores, with the null directions in and out."""
    from jepa_jax.extras import require_packages
    from jepa_jax.scored.reading import named_path, read_table
    from jepa_jax.studies.paper_eps import sensitivity
    from jepa_jax.studies.paper_record import write_record

    require_packages()

    def read(text: str):
        name, path = named_path(text)
        return read_table(path, name=name, null_directions=null_directions)

    results, lines = sensitivity(read(scored), None if out is None else read(out))
    console.print(str(write_record(output, "eps", results, lines)), markup=False, soft_wrap=True)


@study.command()
def views(
    data: Annotated[str, typer.Argument(help=SET)],
    model: Models,
    output: Output,
    count: Annotated[int, typer.Option("--views", min=2, max=64, help="Views of each image.")] = 16,
    images: Images = 100,
    image_size: Size = None,
    seed: Seed = 0,
) -> None:
    """How much scores depend on the view, and what averaging over views gains."""
    from jepa_jax.extras import require_packages
    from jepa_jax.loading import load_encoder
    from jepa_jax.studies.paper_record import write_record
    from jepa_jax.studies.paper_sets import read_set
    from jepa_jax.studies.paper_views import sensitivity

    require_packages()
    chosen = read_set(data, images, seed=seed)
    results, lines = {}, []
    for name in model:
        encoder = load_encoder(name, image_size=image_size)
        with console.status(f"scoring {count} views of {len(chosen):,} images by {encoder.spec.name}"):
            results[encoder.spec.name], page = sensitivity(encoder, chosen, count, seed=seed)
        lines += [*page, ""]
    console.print(str(write_record(output, "views", results, lines)), markup=False, soft_wrap=True)
