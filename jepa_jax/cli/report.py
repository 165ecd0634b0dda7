"""`jepa-jax report`: scored sets to one HTML file."""

from __future__ import annotations

from typing import Annotated

import typer

from jepa_jax.cli.app import app, console
from jepa_jax.cli.encoder_options import NullDirections
from jepa_jax.errors import ArgumentError
from jepa_jax.paths import make_output, to_path, write_output


@app.command()
def report(
    directories: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Outputs of jepa-jax score; NAME=DIR gives one a name."),
    ],
    output: Annotated[
        str | None,
        typer.Option(help="The HTML file; by default report.html in the first directory, or beside the first file."),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Title of the page; by default: How typical are these images?, or clips.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Groups of the gallery: 'folder', a column, or a regular expression over the keys whose first group "
            "counts, such as '^([a-z]+)_'. By default folder, where there are several."
        ),
    ] = None,
    per_shelf: Annotated[int, typer.Option(min=1, max=40, help="Thumbnails in a row of the gallery.")] = 8,
    groups: Annotated[int, typer.Option(min=0, max=200, help="Groups in the gallery, the largest first.")] = 12,
    complexity_images: Annotated[
        int, typer.Option(min=0, help="Images per set to measure complexity on; 0 for none.")
    ] = 1500,
    extremes: Annotated[
        int, typer.Option(min=0, help="The list of all images shows the pictures of the N rarest and N most typical.")
    ] = 150,
    null_directions: NullDirections = 0,
    images: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: where a set's images are, if not where they were scored.")
    ] = None,
    keys: Annotated[
        str | None, typer.Option(help="Show only these records: keys.txt or selection.parquet of jepa-jax select.")
    ] = None,
    partial: Annotated[bool, typer.Option(help="Take unfinished jobs as they are.")] = False,
) -> None:
    """Show scored sets in one self-contained HTML file: distribution, gallery, spectra, complexity, agreement."""
    from jepa_jax.analysis.report import ReportOptions, build_report
    from jepa_jax.extras import require_packages
    from jepa_jax.images.sources.keys import read_keys
    from jepa_jax.scored.image_reader import ImageReader
    from jepa_jax.scored.reading import named_path, read_table
    from jepa_jax.scored.table import only

    require_packages("analysis", ("jinja2", "scipy"))
    tables = [
        read_table(path, name=name, null_directions=null_directions, partial=partial)
        for name, path in map(named_path, directories)
    ]
    if keys is not None:
        tables = only(tables, read_keys(keys))
    options = ReportOptions(title, group_by, per_shelf, groups, complexity_images, extremes)
    readers = ImageReader.all_of(tables, images or [])
    first = to_path(named_path(directories[0])[1])
    target = to_path(output) if output else (first if first.is_dir() else first.parent) / "report.html"
    if target.is_dir():
        raise ArgumentError(f"output {target} is a directory; name a file in it, such as {target / 'report.html'}.")
    with console.status("building the report"):
        page = build_report(tables, options, readers).encode()
        make_output(target.parent)
        write_output(target, page)
    console.print(f"{target} ({len(page) / 1e6:.1f} MB)", markup=False, soft_wrap=True)
