"""`jepa-jax bench`: images per second on this machine, and several such results side by side."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated, Any

import typer
from rich.table import Table

from jepa_jax.cli.app import app, console
from jepa_jax.cli.encoder_options import Frames, ImageSize, Layers
from jepa_jax.errors import ArgumentError
from jepa_jax.numerics.precision import LEVELS, Precision, check_precision
from jepa_jax.paths import make_output, to_path, write_output

EXPLAINED = (
    "limit: share of the rate of one large matrix product; forward: encoder passes in the time of a score; "
    "off: largest difference from float64 of two pictures' scores, in nats; bound: what score_error predicts."
)


@app.command()
def bench(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="Earlier results, for --compare.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="Known name, whose weights are drawn at random unless it ships; or a directory of weights."),
    ] = "jepa-tiny",
    image_size: ImageSize = None,
    frames: Frames = None,
    layer: Layers = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Level to measure; may be repeated; by default all that the device has units for."),
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Images in a batch; may be repeated; by default what fills the device, and one."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Begin nothing new after this many seconds.")] = 90.0,
    output: Annotated[str | None, typer.Option(help="Write the results there, as JSON.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show FILEs side by side; measure nothing.")] = False,
) -> None:
    """Measure images per second by precision and batch, next to the device's own limit and to float64."""
    if not 0 <= seconds < math.inf:
        raise ArgumentError(f"seconds={seconds} must be a number from 0 on.")
    if compare:
        _print_comparison([_read(file) for file in files or []])
        return
    if files:
        raise ArgumentError(f"files {', '.join(files)}: give --compare to show them side by side.")
    from jepa_jax.costs.throughput import Throughput, measure_throughput
    from jepa_jax.encoders import ENCODERS, SHIPPED
    from jepa_jax.encoders.drawn import random_encoder
    from jepa_jax.encoders.layerwise import layer_numbers
    from jepa_jax.loading import load_encoder
    from jepa_jax.provenance import describe

    for level in precision or ():
        check_precision(level)
    drawn = model in ENCODERS and model not in SHIPPED
    if drawn:
        spec = ENCODERS[model]
        spec = spec if image_size is None else spec.at_image_size(image_size)
        encoder = random_encoder(spec if frames is None else spec.with_frames(frames, None))
    else:
        encoder = load_encoder(model, image_size=image_size, frames=frames)
    weights = "random" if drawn else encoder.digest
    layers = layer_numbers(layer or (), encoder.spec.vit.depth)
    facts = describe() | {"encoder": encoder.spec.name, "image_size": encoder.spec.image_size, "weights": weights}
    facts |= {"frames": encoder.spec.preprocess.frames, "layers": list(layers)}
    results: dict[str, Any] = {"facts": facts, "rows": []}

    def record(rows: list[Throughput]) -> None:
        results["rows"] = [dataclasses.asdict(row) for row in rows]
        if output is not None:
            target = to_path(output)
            make_output(target.parent)
            write_output(target, (json.dumps(results, indent=1) + "\n").encode())

    with console.status(f"Measuring {encoder.spec.name}; this takes up to about two minutes."):
        levels: list[Precision] = [level for level in LEVELS if level in (precision or ())]
        measure_throughput(encoder, levels, batch_size or (), layers=layers, seconds=seconds, done=record)
    console.print(_about(facts), soft_wrap=True, markup=False, highlight=False)
    console.print(_table(results["rows"]))
    console.print(EXPLAINED, soft_wrap=True, markup=False)


def _read(file: str) -> dict[str, Any]:
    try:
        results = json.loads(to_path(file).read_text())
        _ = results["facts"]["device"], [row["milliseconds"] for row in results["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"files {file}: no result of jepa-jax bench --output ({error}).") from error
    return results


def _about(facts: dict[str, Any]) -> str:
    """Where it was measured, in a line."""
    of = f"{facts['encoder']} at {_size(facts)} ({facts['weights'][:12]} weights){_layers(facts)}"
    where = f"{facts['devices']} x {facts['device']}, {facts['processor']}, {facts['cores']} cores"
    return f"{of} on {where}; jepa_jax {facts['jepa_jax']}, jax {facts['jax']}, commit {facts['commit']}"


def _size(facts: dict[str, Any]) -> str:
    """Of an image, or of a clip; earlier results know of images alone."""
    frames = facts.get("frames")
    return f"{facts['image_size']} pixels" if frames is None else f"{frames} frames of {facts['image_size']} pixels"


def _layers(facts: dict[str, Any]) -> str:
    layers = facts.get("layers")
    return f", and its layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}" if layers else ""


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = (
        "precision",
        "batch",
        "img/s",
        "ms/img",
        "limit",
        "forward",
        "memory",
        "off",
        "bound",
    )
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        error = "?" if row["error"] is None else f"{row['error']:.1e}"
        speed = _digits(row["images_per_second"]), _digits(row["milliseconds"]), f"{row['ceiling_share']:.0%}"
        table.add_row(
            row["precision"] + " (emulated)" * row["emulated"],
            str(row["batch_size"]),
            *speed,
            f"{row['forward_passes']:.0f}",
            f"{row['peak_bytes'] / 2**20:,.0f} MiB",
            error,
            f"{row['score_error']:.1e}",
        )
    return table


def _digits(value: float) -> str:
    """Four of a number, or all before the point: no exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _print_comparison(results: list[dict[str, Any]]) -> None:
    """Milliseconds an image, a column per file, and how many times as fast as the first."""
    if not results:
        raise ArgumentError("files: none is given; name results of jepa-jax bench --output.")
    for number, result in enumerate(results, 1):
        console.print(f"{number}: {_about(result['facts'])}", soft_wrap=True, markup=False, highlight=False)
    found: dict[tuple[Any, ...], dict[int, float]] = {}
    for number, result in enumerate(results):
        for row in result["rows"]:
            facts = result["facts"]
            case = facts["encoder"] + _layers(facts), _size(facts), row["precision"], row["batch_size"]
            found.setdefault(case, {})[number] = row["milliseconds"]
    numbers = [str(number) for number in range(1, len(results) + 1)]
    table = Table("encoder", "input", "precision", "batch", *(f"ms/image {number}" for number in numbers), box=None)
    for case, by_file in found.items():
        cells = []
        for number in range(len(results)):
            if number not in by_file:
                cells.append("")
                continue
            faster = f" ({by_file[0] / by_file[number]:.2f}x)" if number and 0 in by_file else ""
            cells.append(f"{_digits(by_file[number])}{faster}")
        table.add_row(*map(str, case), *cells)
    console.print(table)
