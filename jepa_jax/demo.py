"""`jepa-jax demo`: the whole line, offline: load the encoder that ships, score a folder, print the numbers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from jepa_jax.encoders.shipped import ABOUT_DEFAULT, DEFAULT
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.jobs import open_source, run_job
from jepa_jax.loading import load_encoder
from jepa_jax.reporting import ConsoleProgress, print_summary


def run_demo(console: Console, output: Path, model: str = DEFAULT) -> None:
    """Score scikit-image's bundled pictures.

    Args:
        console: where to print.
        output: new directory of the table.
        model: which encoder scores; see `load_encoder`.
    """
    if find_spec("skimage") is None:
        raise JobError("the demo scores scikit-image's bundled pictures: pip install scikit-image.")
    if output.exists() and any(output.iterdir()):
        raise ArgumentError(f"output {output} is not empty; name a new directory.")
    import skimage

    if model == DEFAULT:
        console.print(ABOUT_DEFAULT, soft_wrap=True)
    encoder = load_encoder(model)
    source = open_source(Path(skimage.__file__).parent / "data")
    console.print(f"Scoring scikit-image's {len(source.keys)} bundled pictures with {encoder}.", markup=False)
    with ConsoleProgress(console) as progress:
        summary = run_job(encoder, source, output, progress)
    print_summary(console, summary, output)
