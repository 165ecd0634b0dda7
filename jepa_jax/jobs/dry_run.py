"""`--dry-run`: what a job would do and need, with the step compiled and a short pilot, but nothing written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax

from jepa_jax.encoders import Encoder
from jepa_jax.images.decoding import InputRecipe
from jepa_jax.images.pipeline import records_in_memory
from jepa_jax.images.sources import Records
from jepa_jax.jobs.claim import output_place
from jepa_jax.jobs.devices import ExactStep, default_batch_size
from jepa_jax.jobs.forecast import bytes_of_a_row
from jepa_jax.jobs.machine import cores
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.pilot import SECONDS, Pilot, run_pilot
from jepa_jax.jobs.plan import make_plan
from jepa_jax.jobs.stream import get_ready
from jepa_jax.jobs.team import Team
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.paths import PathLike


@dataclass(frozen=True)
class DryRun:
    """The plan of a job.

    Attributes:
        records: in the input.
        records_missing: those that are still to be scored.
        shards: parts of the whole table.
        shards_missing: those that are still to be written.
        processes: that share the work.
        devices: of each process.
        batch_size: images per step of a process, every view counted.
        recipe: what is scored of each image.
        rows_per_pass: rows of one image's Jacobian that are computed together; None where all are.
        host_bytes: of decoded images that wait, at most, per process.
        device_bytes: parameters, images and intermediates of the compiled step, per process; None where
            the backend does not say.
        compile_seconds: that compiling the step took here.
        row_bytes: of a row of the table.
        pilot: what a trial on some of the missing records found; None where none is missing.
        cores: of the processor that this process may use.
        on_processor: whether the device is that processor itself, whose cores the workers take.
    """

    records: int
    records_missing: int
    shards: int
    shards_missing: int
    processes: int
    devices: int
    batch_size: int
    recipe: InputRecipe
    host_bytes: int
    rows_per_pass: int | None
    device_bytes: int | None
    compile_seconds: float
    row_bytes: float
    pilot: Pilot | None
    cores: int
    on_processor: bool

    @property
    def seconds(self) -> float:
        """What the missing records take, from the first on, compiling left out."""
        return self.pilot.seconds(self.records_missing, self.processes) if self.pilot else 0.0


def dry_run(
    encoder: Encoder,
    source: Records,
    output: PathLike,
    options: JobOptions,
    *,
    team: Team | None = None,
    pilot_seconds: float = SECONDS,
    doing: Callable[[str], None] = lambda what: None,
) -> DryRun:
    """Plan a job, compile its step and try it on some of the records.

    Args:
        encoder: scores the images.
        source: the records.
        output: directory of the table; it is read, never written.
        options: of the job.
        team: of how many processes this is one.
        pilot_seconds: for which each of the pilot's three rates is measured, about.
        doing: is told what goes on.
    """
    options, team = options.resolved, team or Team()
    plan = make_plan(encoder, source, output_place(output), options, write=False, team=team)
    step = ExactStep(encoder, options, options.batch_size or default_batch_size(encoder.spec))
    doing(f"compiling for batches of {step.batch_size}")
    get_ready(step)
    program = step.compile()
    missing = [index for shard in plan.missing for index in plan.shards[shard]]
    pilot = run_pilot(plan.source, missing, step, options, pilot_seconds, doing) if missing else None
    image_bytes = 4 * math.prod(step.image_shape)
    waiting = records_in_memory(step.recipe, 2 * step.records, options.workers) * step.recipe.count
    return DryRun(
        plan.records,
        plan.records_missing,
        len(plan.shards),
        len(plan.missing),
        team.count,
        jax.local_device_count(),
        step.batch_size,
        step.recipe,
        (waiting + (step.batches_at_once() + 2) * step.batch_size) * image_bytes,
        program.plan.block_size,
        program.peak_bytes or None,
        program.compile_seconds,
        bytes_of_a_row(plan.writer.schema),
        pilot,
        cores(),
        platform_of(jax.local_devices()) == "cpu",
    )
