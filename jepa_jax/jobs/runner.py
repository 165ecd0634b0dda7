"""A scoring job: from a source of images to a complete table, resumable at any shard.

The unit of work is a shard, a fixed run of record indices. A shard is done when its part exists; a
resumed job computes the parts that are missing and nothing else, with however many processes.
"""

from __future__ import annotations

import time
from typing import Any

from jepa_jax.encoders import Encoder
from jepa_jax.images.sources import Records
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.output.manifest import read_manifest, write_manifest
from jepa_jax.jobs.output.ownership import Ownership, output_place
from jepa_jax.jobs.plan import Plan, make_plan
from jepa_jax.jobs.processes.team import Deal, Team
from jepa_jax.jobs.progress.protocol import Progress, Summary
from jepa_jax.jobs.rows.exact import ExactStep
from jepa_jax.jobs.rows.predicted import PredictingStep
from jepa_jax.jobs.rows.step import Step, get_ready
from jepa_jax.jobs.stopping import StopSignals
from jepa_jax.jobs.work import Work
from jepa_jax.paths import AnyPath, PathLike
from jepa_jax.scoring.noise import Noise

FINISHING = 5.0
"""Seconds that a process gives each of those before it to close a job whose parts are all there."""


def run_job(
    encoder: Encoder,
    source: Records,
    output: PathLike,
    progress: Progress,
    options: JobOptions | None = None,
    team: Team | None = None,
) -> Summary:
    """Score every record of a source, or what earlier runs left of it.

    Several processes do a job in common where each gives the same arguments, sees the same input and the same output
    directory, and says which one it is.

    Args:
        encoder: scores the images, by its own recipe.
        source: the records.
        output: directory of the table; a job that was begun there is resumed.
        progress: is told what happens in this process.
        options: how it is done.
        team: this process among the others; by default it is alone.

    Returns:
        The summary of the whole job, in every process.

    Raises:
        JobInterrupted: a signal stopped it.
        JobError: the directory belongs to another job, or the job cannot go on. What is whole is kept.
    """
    directory, team = output_place(output), team or Team()
    options = (options or JobOptions()).resolved
    with StopSignals(progress.note) as signals:
        plan = make_plan(encoder, source, directory, options, write=True, team=team)
        for note in plan.notes:
            progress.note(note)
        with Deal(directory, plan.missing, team, plan.writer.written, plan.writer.is_written) as deal:
            _score_missing(encoder, plan, options, progress, team, deal, signals)
            if deal.alone:
                progress.note(
                    f"This process did all parts, and none of the {team.count - 1} others was seen: do all see "
                    f"one and the same directory {directory}?"
                )
            return finish(plan, directory, options, team, deal, signals)


def _score_missing(
    encoder: Encoder,
    plan: Plan,
    options: JobOptions,
    progress: Progress,
    team: Team,
    deal: Deal,
    signals: StopSignals,
) -> None:
    """Compute and write missing parts until none is left, whoever wrote it.

    Batches run across shards, so that only the last one of a process is ever filled up.
    """
    records, todo = plan.records, plan.records_missing
    progress.start(records, records - todo)
    if not plan.missing:
        return
    noise = plan.manifest["noise"]
    step = make_step(encoder, options, progress, noise)
    progress.doing(f"compiling for batches of {step.batch_size}")
    signals.waiting_for = lambda: "the compiler, which cannot be interrupted"
    progress.note(get_ready(step))
    if noise:
        levels = ", ".join(f"{value:.2g} in {level}" for level, value in noise.items())
        progress.note(f"Rounding noise of the Jacobian, measured on {options.noise_images} images: {levels}.")
    progress.doing("decoding and computing the first batch")
    work = Work(plan, step, options, progress, team, Ownership(plan.writer.directory, plan.manifest), deal, signals)
    while True:
        work.compute(deal.now())
        if not deal.anything_left():
            break
        work.claim.watch()
        work.look_at_others()
        work.wait()
    if said := work.clock.verdict(options.workers):
        progress.note(said)


def make_step(encoder: Encoder, options: JobOptions, progress: Progress, noise: Noise | None) -> Step:
    """What scores a batch of a job."""
    if options.predictor is not None:
        return PredictingStep(encoder, options.predictor)
    return ExactStep(encoder, options, options.batch_size, progress.note, noise)


def finish(
    plan: Plan,
    directory: AnyPath,
    options: JobOptions,
    team: Team,
    deal: Deal,
    signals: StopSignals,
    told: dict[str, Any] | None = None,
) -> Summary:
    """Check the tables and close the job; the processes after the first give those before them time to do it.

    What is ``told`` stands in the manifest besides.
    """
    deadline = time.monotonic() + FINISHING * team.index
    resumed = plan.records - plan.records_missing
    while time.monotonic() < deadline:
        found = read_manifest(directory)
        if found is not None and found.get("complete") and found.get("extensions") == plan.manifest.get("extensions"):
            return Summary(plan.records, found["scored"], found["failed"], resumed)
        signals.raise_if_received()
        time.sleep(0.2)
    claim = Ownership(directory, plan.manifest)
    claim.require()
    failed = plan.writer.finish([len(indices) for indices in plan.shards])
    claim.require()
    options.failure_limit.check_all(plan.records, failed)
    scored = plan.records - failed
    write_manifest(directory, plan.manifest | {"complete": True, "scored": scored, "failed": failed} | (told or {}))
    deal.clear()
    return Summary(plan.records, scored, failed, resumed)
