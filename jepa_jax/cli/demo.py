"""`jepa-jax demo`: the whole line, offline: load the encoder that ships, score a folder, numbers, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jepa_jax.cli.app import app, console


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="New directory for the demo's table and report.")] = Path(
        "jepa-jax-demo"
    ),
    model: Annotated[str, typer.Option(help="Which encoder scores; jepa-tiny ships with this package.")] = "jepa-tiny",
) -> None:
    """Score scikit-image's bundled photographs and show them in a report, offline."""
    from jepa_jax.cli.report import report
    from jepa_jax.cli.reporting import print_summary
    from jepa_jax.encoders.shipped import ABOUT_DEFAULT, DEFAULT
    from jepa_jax.errors import ArgumentError
    from jepa_jax.extras import require_packages
    from jepa_jax.images.sources import open_source
    from jepa_jax.jobs import JobOptions, run_job
    from jepa_jax.jobs.progress.console import ConsoleProgress
    from jepa_jax.loading import load_encoder

    require_packages("demo", ("skimage", "jinja2", "scipy"))
    if output.exists() and any(output.iterdir()):
        raise ArgumentError(f"output {output} is not empty; name a new directory.")
    import skimage

    if model == DEFAULT:
        console.print(ABOUT_DEFAULT, soft_wrap=True)
    encoder = load_encoder(model)
    source = open_source(Path(skimage.__file__).parent / "data")
    console.print(f"Scoring scikit-image's {len(source.keys)} bundled pictures with {encoder}.", markup=False)
    with ConsoleProgress(console) as progress:
        summary = run_job(encoder, source, output, progress, JobOptions(columns=("singular_values",)))
    print_summary(console, summary, output)
    report([f"scikit-image={output}"], title="How typical are scikit-image's pictures?")
