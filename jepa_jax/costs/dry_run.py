"""`--dry-run`: what a job would do and need, with the step compiled and a short pilot, but nothing written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax

from jepa_jax.costs.forecast import bytes_of_a_row
from jepa_jax.costs.pilot import SECONDS, Pilot, run_pilot
from jepa_jax.encoders import Encoder
from jepa_jax.images.decoding import InputRecipe
from jepa_jax.images.pipeline import records_in_memory
from jepa_jax.images.sources import Records
from jepa_jax.jobs.amortising import require_others
from jepa_jax.jobs.options import Amortise, JobOptions
from jepa_jax.jobs.output.ownership import output_place
from jepa_jax.jobs.plan import make_plan
from jepa_jax.jobs.processes.team import Team
from jepa_jax.jobs.rows.exact import ExactStep
from jepa_jax.jobs.rows.predicted import FeatureStep
from jepa_jax.jobs.rows.step import get_ready
from jepa_jax.numerics.platforms import cores, platform_of
from jepa_jax.paths import PathLike


@dataclass(frozen=True)
class Stages:
    """What the stages of a job that predicts would do, from its beginning; the exact ones are tried as any job is.

    Attributes:
        sample: records that are scored exactly first, for the fit; 0 with a predictor that is given.
        escalated: records that are scored exactly afterwards, about; None where a recall decides.
        forward: what a trial of the forward pass found.
    """

    sample: int
    escalated: int | None
    forward: Pilot

    @classmethod
    def of(cls, ask: Amortise, records: int, forward: Pilot) -> Stages:
        """The stages of a job of so many records."""
        share = ask.escalate if isinstance(ask.tail, str) else ask.tail[1] - ask.tail[0]
        return cls(
            0 if ask.predictor is not None else ask.exact_sample,
            None if ask.recall is not None else round(share * records),
            forward,
        )

    @property
    def exact(self) -> int:
        """Records that are scored exactly, as far as their number is known."""
        return self.sample + (self.escalated or 0)


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
        pilot: what a trial on some of the missing records found, scored exactly; None where none is missing.
        stages: of a job that predicts most scores; None of any other, and where no record is missing.
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
    stages: Stages | None = None

    @property
    def seconds(self) -> float:
        """What the missing records take, from the first on, compiling left out."""
        if self.pilot is None:
            return 0.0
        if self.stages is None:
            return self.pilot.seconds(self.records_missing, self.processes)
        return self._exact_seconds + self.stages.forward.seconds(self.reads - self.stages.exact, self.processes)

    @property
    def _exact_seconds(self) -> float:
        assert self.pilot is not None
        assert self.stages is not None
        return self.pilot.seconds(self.stages.exact, self.processes) if self.stages.exact else 0.0

    @property
    def reads(self) -> int:
        """Records that are read and decoded: by a job that predicts its exact ones twice, the sample thrice."""
        if self.stages is None:
            return self.records_missing
        return self.records_missing + self.stages.exact + self.stages.sample

    @property
    def slower(self) -> Pilot | None:
        """The trial of what takes most of the time."""
        if self.stages is None or 2 * self._exact_seconds > self.seconds:
            return self.pilot
        return self.stages.forward


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
    options, team, ask = options.resolved, team or Team(), options.amortise
    if ask is not None:
        require_others(source, ask)
    plan = make_plan(encoder, source, output_place(output), options, write=False, team=team)
    table = plan.writer.schema
    if ask is not None:  # its exact stages are jobs of their own, of scores alone
        options = dataclasses.replace(
            options, amortise=None, columns=(), score=dataclasses.replace(options.score, spectrum=False)
        )
    step = ExactStep(encoder, options, options.batch_size)
    doing(f"compiling for batches of {step.batch_size}")
    get_ready(step)
    program = step.compile()
    missing = [index for shard in plan.missing for index in plan.shards[shard]]
    pilot = run_pilot(plan.source, missing, step, options, pilot_seconds, doing) if missing else None
    stages = None
    if ask is not None and missing:
        passing = FeatureStep(encoder)
        doing("compiling a forward pass")
        get_ready(passing)
        stages = Stages.of(ask, plan.records, run_pilot(plan.source, missing, passing, options, pilot_seconds, doing))
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
        bytes_of_a_row(table),
        pilot,
        cores(),
        platform_of(jax.local_devices()) == "cpu",
        stages,
    )
