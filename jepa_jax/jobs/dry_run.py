"""`--dry-run`: what a job would do and need, with the step compiled but nothing scored or written."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax

from jepa_jax.encoders import Encoder
from jepa_jax.images.decoding import InputRecipe
from jepa_jax.images.pipeline import records_in_memory
from jepa_jax.images.sources import Records
from jepa_jax.jobs.claim import output_place
from jepa_jax.jobs.devices import Step, default_batch_size
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.runner import make_plan
from jepa_jax.jobs.stream import compile_step
from jepa_jax.jobs.team import Team
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


def dry_run(
    encoder: Encoder, source: Records, output: PathLike, options: JobOptions, team: Team | None = None
) -> DryRun:
    """Plan a job and compile its step; the output directory is read, never written."""
    options, team = options.resolved, team or Team()
    plan = make_plan(encoder, source, output_place(output), options, write=False, team=team)
    step = Step(encoder, options, options.batch_size or default_batch_size(encoder.spec))
    program = compile_step(step)
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
    )
