"""`jepa-jax demo`: the whole line, offline, in about two minutes: train, save, load, score a folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from jepa_jax.encoders import save_encoder
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.jobs import open_source, run_job
from jepa_jax.loading import load_encoder
from jepa_jax.reporting import ConsoleProgress, print_summary


def run_demo(console: Console, output: Path, seconds: int) -> None:
    """Train the demo encoder and score scikit-image's bundled pictures with it.

    Args:
        console: where to print.
        output: new directory; gets ``encoder/`` and ``scores/``.
        seconds: training time.
    """
    for package in ("skimage", "optax"):
        if find_spec(package) is None:
            raise JobError(f"the demo needs {package}: pip install optax scikit-image.")
    if output.exists() and any(output.iterdir()):
        raise ArgumentError(f"output {output} is not empty; name a new directory.")
    import skimage

    from jepa_jax.training.demo_encoder import train_demo_encoder

    console.print(
        f"Training a very small encoder for {seconds} s on drawn shapes. It shows the way from encoder to table; its "
        "scores say how shape-like a picture is, not how typical a photograph. For that: jepa-jax score --model "
        "dinov2-small."
    )
    with console.status("compiling") as status:
        encoder = train_demo_encoder(
            seconds, lambda step, a, b: status.update(f"step {step}: invariance {a:.3f}, distance from normal {b:.4f}")
        )
    save_encoder(encoder, output / "encoder", {"format": "trained by jepa-jax demo"})
    pictures = Path(skimage.__file__).parent / "data"
    source = open_source(pictures)
    console.print(f"Scoring scikit-image's {len(source.keys)} bundled pictures.")
    with ConsoleProgress(console) as progress:
        summary = run_job(load_encoder(output / "encoder"), source, output / "scores", progress)
    print_summary(console, summary, output / "scores")
