"""`jepa-jax plan`: what scoring would take, without weights or data."""

from __future__ import annotations

import dataclasses
import json
import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from jepa_jax.cli.amortised_options import MethodChoice
from jepa_jax.cli.app import app, console
from jepa_jax.cli.encoder_options import Frames, ImageSize, Layers, Precision, memory_bytes
from jepa_jax.errors import ArgumentError

if TYPE_CHECKING:
    from jepa_jax.costs.forecast import Forecast
    from jepa_jax.costs.planning import ScoringPlan


class ModeChoice(StrEnum):
    """Values of --mode."""

    auto = "auto"
    forward = "forward"
    reverse = "reverse"


class EngineChoice(StrEnum):
    """Values of --engine."""

    auto = "auto"
    rules = "rules"
    generic = "generic"


@app.command()
def plan(
    model: Annotated[
        str, typer.Option(help="Known name, converted directory, Hugging Face folder, or hub id.")
    ] = "jepa-tiny",
    image_size: ImageSize = None,
    frames: Frames = None,
    precision: Precision = "auto",
    memory: Annotated[
        float | None, typer.Option(help="GiB that scoring may take; by default what the device has.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per batch of a process.")] = None,
    score_only: Annotated[bool, typer.Option("--score-only", help="As in jepa-jax score: no eigensolver.")] = False,
    layer: Layers = None,
    mode: Annotated[ModeChoice, typer.Option(help="Mode of JAX's own differentiation.")] = ModeChoice.auto,
    engine: Annotated[
        EngineChoice, typer.Option(help="The encoder's layer rules, or JAX's own differentiation (generic).")
    ] = EngineChoice.auto,
    target: Annotated[
        str | None,
        typer.Option(
            help="Plan for devices that need not be here, such as v5e:2x2 or h100:8; --compile runs their compiler."
        ),
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile as well: the time it takes, and XLA's own figure of memory.")
    ] = False,
    images: Annotated[
        float | None,
        typer.Option(help="Images of a job, such as 1e9: estimate its hours, bytes and cores; needs --rate."),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="Devices that share the job.")] = 1,
    rate: Annotated[
        float | None, typer.Option(help="Images per second of one device, as jepa-jax bench measures it.")
    ] = None,
    cores: Annotated[
        float | None, typer.Option(help="Cores that decode, of all machines; by default as many as are needed.")
    ] = None,
    method: Annotated[MethodChoice, typer.Option(help="As in jepa-jax score; amortised needs --forward-rate.")] = (
        MethodChoice.exact
    ),
    forward_rate: Annotated[
        float | None,
        typer.Option(help="Images per second of one device in a forward pass, as jepa-jax calibrate measures it."),
    ] = None,
    exact_sample: Annotated[int, typer.Option(min=1, help="As in jepa-jax score.")] = 2000,
    escalate: Annotated[float, typer.Option(help="As in jepa-jax score.")] = 0.02,
    price: Annotated[float, typer.Option(min=0, help="Price of a device-hour, in any currency.")] = 0,
    picture: Annotated[
        float | None, typer.Option(help="Bytes of an encoded picture; by default as of ImageNet's JPEGs.")
    ] = None,
    decoded: Annotated[
        float | None,
        typer.Option(help="Pictures that a core decodes per second; by default as measured on such JPEGs."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object of the same facts.")] = False,
) -> None:
    """Print what scoring would take: memory and arithmetic, and with --images hours, bytes and cores of a job."""
    import jax

    from jepa_jax.costs.forecast import DECODED, PICTURE, Forecast, bytes_of_a_row
    from jepa_jax.costs.planning import plan_scoring
    from jepa_jax.costs.target import target_memory, target_mesh
    from jepa_jax.encoders import ENCODERS
    from jepa_jax.encoders.function import layer_ranks
    from jepa_jax.jobs.output.schema import amortised_schema, score_schema
    from jepa_jax.loading import load_encoder
    from jepa_jax.scoring.batches import default_batch_size
    from jepa_jax.scoring.meshes import local_mesh
    from jepa_jax.scoring.options import ScoreOptions

    if (images is None) != (rate is None):
        given, missing = ("images", "rate") if rate is None else ("rate", "images")
        raise ArgumentError(f"--{given} needs --{missing}: a job's time is images over devices times rate.")
    amortised = method == MethodChoice.amortised
    if amortised and (images is None or forward_rate is None):
        missing = "images" if images is None else "forward-rate"
        raise ArgumentError(f"--method amortised needs --{missing}: of one image there is nothing to plan.")
    if amortised and layer:
        raise ArgumentError("--layer: an amortised job has none. Leave it out, or plan exact scores.")
    if target is not None:
        jax.config.update("jax_platforms", "cpu")  # no device is looked for: the compiler alone is asked
    mesh = local_mesh() if target is None else target_mesh(target)
    budget = target_memory(target) if target is not None and memory is None else None
    spec = ENCODERS[model] if model in ENCODERS else load_encoder(model).spec
    spec = spec if image_size is None else spec.at_image_size(image_size)
    spec = spec if frames is None else spec.with_frames(frames, None)
    planned = plan_scoring(
        spec,
        batch_size or default_batch_size(spec, None if mesh is None else list(mesh.devices.flat)),
        ScoreOptions(
            precision,
            mode.value,
            engine.value,
            spectrum=not score_only,
            memory=budget if memory is None else memory_bytes(memory),
            mesh=mesh,
            layers=layer or (),
        ),
        compiled=compile,
        report=lambda message: None if as_json else console.print(message, soft_wrap=True, markup=False),
    )
    facts = _facts(planned, score_only)
    if mesh is not None and target is not None:
        _add_target(facts, planned, mesh.devices.flat[0].device_kind, mesh.devices.size)
    if images is not None and rate is not None:
        size = spec.embedding_size
        ranks = layer_ranks(spec.vit, math.prod(spec.input_shape), planned.layers)
        exact = score_schema(size, spec.gaussian_embedding, (), score_only=score_only, layers=ranks)
        row = bytes_of_a_row(amortised_schema(size, ()) if amortised else exact)
        assumed = PICTURE if picture is None else picture, DECODED if decoded is None else decoded
        predicted = (exact_sample + escalate * images, forward_rate) if amortised else ()
        if target is None:
            kind = jax.local_devices()[0].device_kind
            facts.add_row("machine", f"all of the above is of this one ({kind}); the job goes by --rate")
        _add_forecast(facts, Forecast(images, devices, rate, row, *assumed, cores, *predicted), price)
    if as_json:
        names, values = (list(column.cells) for column in facts.columns)
        print(json.dumps(dict(zip(names, values, strict=True)), indent=2))
    else:
        console.print(facts)


def _facts(plan: ScoringPlan, score_only: bool) -> Table:
    """What scoring would take, a line per fact."""
    spec, jacobian, memory, program = plan.spec, plan.jacobian, plan.memory, plan.program
    outputs, side = spec.embedding_size, spec.image_size
    inputs = math.prod(spec.input_shape)
    forward = not plan.rules and jacobian.forward_mode(inputs, outputs)
    taken, of = (
        jacobian.pass_size(inputs, outputs, layered=True),
        f"{inputs} columns" if forward else f"{outputs} rows",
    )
    facts = Table(show_header=False, box=None)
    frames = "" if spec.preprocess.frames is None else f"{spec.preprocess.frames} frames of "
    facts.add_row("encoder", f"{spec.name}, {frames}{side} x {side} pixels, {outputs} rows in a Jacobian")
    if plan.layers:
        facts.add_row("layers", f"{', '.join(map(str, plan.layers))}, {spec.vit.width} rows each")
    facts.add_row("batch", f"{plan.batch_size} images, {_images_per_step(plan)} side by side on each device")
    facts.add_row("pass", f"{taken} of {of}")
    engine = "the layer rules" if plan.rules else "JAX's own differentiation"
    facts.add_row("Jacobian", f"by {engine}, in {jacobian.precision}")
    facts.add_row("spectrum", f"by {plan.method}{', the volume alone' * score_only}")
    share = plan.multiplications / plan.naive_multiplications
    facts.add_row(
        "multiplications",
        f"{plan.multiplications / 1e9:,.1f} billion per image, {share:.2f} of one pullback per row "
        f"({plan.naive_multiplications / 1e9:,.1f} billion)",
    )
    if memory is None:
        facts.add_row("memory", "known after compiling (--compile) alone, without the layer rules")
    else:
        parts = ", ".join(f"{name} {_mebibytes(size)}" for name, size in dataclasses.asdict(memory).items())
        facts.add_row("memory", f"about {_mebibytes(memory.total)} ({_each(plan)}): {parts}")
    facts.add_row("budget", _mebibytes(plan.budget))
    if program is not None:
        images = program.at_once * _images_per_step(plan)
        facts.add_row("compiled", f"in {program.compile_seconds:.1f} s; {images} image(s) at a time")
        facts.add_row("XLA's memory", _mebibytes(program.peak_bytes) if program.peak_bytes else "not known here")
    return facts


def _add_target(facts: Table, plan: ScoringPlan, kind: str, devices: int) -> None:
    """What is known of devices that are not here."""
    from jepa_jax.costs.target import KERNEL_CALLS, collectives

    facts.add_row("target", f"{devices} x {kind}")
    if plan.program is None:
        return
    images = _images_on_device(plan, devices)
    most = plan.budget * images // max(1, plan.program.peak_bytes)
    facts.add_row("images that fit", f"about {most} side by side on each device, by XLA's memory of {images}")
    if counts := plan.program.counts():  # for GPUs XLA does not count
        flops, moved = (counts.get(name, math.nan) / images / 1e9 for name in ("flops", "bytes accessed"))
        said = f"{flops:,.0f} billion operations, {moved:,.1f} GB moved"
        facts.add_row("an image", f"{said}, by XLA's count, in which kernels' own arithmetic is missing")
    text = plan.program.text() or ""
    facts.add_row("kernels", "used" if any(name in text for name in KERNEL_CALLS) else "none")
    facts.add_row("among devices", ", ".join(collectives(text)) or "nothing is sent")


def _add_forecast(facts: Table, job: Forecast, price: float) -> None:
    """What a job would take, with what is assumed."""
    if job.exact is None:
        rates = f"{job.rate:,.1f} a second each"
    else:
        rates = f"{job.forward_rate:,.0f} a second each, {job.exact:,.0f} of them exactly as well, at {job.rate:,.1f}"
    facts.add_row(
        "job",
        f"{job.images:,.0f} images on {job.devices} device(s), {rates}: "
        f"{job.hours:,.1f} hours, {job.device_hours:,.1f} device-hours",
    )
    if price:
        facts.add_row("price", f"{job.device_hours * price:,.0f}, at {price:g} a device-hour")
    facts.add_row(
        "read", f"{job.decodings * job.picture / 1e9:,.1f} GB, at {job.picture:,.0f} bytes a picture (--picture)"
    )
    facts.add_row("written", f"{job.images * job.row / 1e9:,.2f} GB, {job.row:.0f} bytes a row")
    facts.add_row(
        "decoding",
        f"{job.images_per_second:,.0f} pictures a second keep {job.decoding_cores:,.1f} cores busy, at "
        f"{job.decoded:,.0f} each (--decoded): " + _about_cores(job),
    )


def _about_cores(job: Forecast) -> str:
    if job.cores is None:
        return "with fewer, decoding is the bottleneck (--cores)"
    return f"of {job.cores:,.0f}: the bottleneck is " + ("decoding" if job.decoding_decides else "the devices")


def _images_on_device(plan: ScoringPlan, devices: int) -> int:
    return min(_images_per_step(plan), math.ceil(plan.batch_size / devices))


def _each(plan: ScoringPlan) -> str:
    from jepa_jax.scoring.concurrency import concurrency_of

    at_once = plan.program.at_once if plan.program else concurrency_of(plan.batch_size, plan.jacobian.platform)
    return f"an image; {at_once} at a time where the budget allows" if at_once > 1 else "all in all"


def _images_per_step(plan: ScoringPlan) -> int:
    return plan.jacobian.step(math.prod(plan.spec.input_shape), plan.spec.embedding_size, plan.batch_size)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
