"""What `jepa-jax score --dry-run` says."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from jepa_jax.costs.dry_run import DryRun, Stages
from jepa_jax.costs.pilot import Pilot
from jepa_jax.images.views import Views
from jepa_jax.jobs.progress.console import duration


def print_dry_run(console: Console, plan: DryRun) -> None:
    """The plan of a job, a line per fact."""
    facts = Table(show_header=False, box=None)
    facts.add_row("records", f"{plan.records:,}, of which {plan.records_missing:,} are to be scored")
    if plan.recipe.views is not None:
        facts.add_row("views", _about_views(plan.recipe.views, plan.recipe.plain))
    facts.add_row("parts", f"{plan.shards:,}, of which {plan.shards_missing:,} are to be written")
    devices = f"{plan.devices} device{'s' * (plan.devices > 1)}"
    facts.add_row("processes", f"{plan.processes}, each {devices} and {plan.batch_size} images a step")
    facts.add_row("host memory", f"{plan.host_bytes / 1e6:,.0f} MB of decoded images, per process")
    facts.add_row("rows per pass", f"{plan.rows_per_pass or 'all'} of one image's Jacobian")
    device = "not known here" if plan.device_bytes is None else f"{plan.device_bytes / 1e6:,.0f} MB"
    facts.add_row("device memory", f"{device} per process: parameters, images and intermediates")
    facts.add_row("first compile", f"{plan.compile_seconds:.1f} s")
    if plan.pilot is not None:
        _add_pilot(facts, plan, plan.pilot)
    console.print(facts)
    console.print("Nothing was written.")


def _add_pilot(facts: Table, plan: DryRun, pilot: Pilot) -> None:
    facts.add_row("pilot", f"{pilot.records:,} records, some of them again; {pilot.failed:.1%} failed")
    facts.add_row("decoding alone", f"{pilot.decoding:,.3g} images/s with {_workers(pilot.workers)}")
    facts.add_row("device alone", _device(pilot) + (", scored exactly" if plan.stages else ""))
    facts.add_row("both together", f"{pilot.both:,.3g} images/s, as the job runs")
    if plan.stages is not None:
        _add_stages(facts, plan, plan.stages)
    facts.add_row("time", f"{duration(plan.seconds)} after compiling ({plan.seconds / 3600:,.3g} h){_assumed(plan)}")
    slower = plan.slower or pilot
    facts.add_row("bottleneck", f"{slower.bottleneck}: {what_would_help(plan, slower)}")
    read = "" if pilot.picture_bytes is None else f"{_bytes(pilot.picture_bytes * plan.reads)} to read, "
    each = "" if pilot.picture_bytes is None else f"{pilot.picture_bytes:,.0f} bytes a record and "
    written = plan.row_bytes * plan.records_missing * (1 - pilot.failed)
    facts.add_row("bytes", f"{read}{_bytes(written)} to write: {each}{plan.row_bytes:.0f} bytes a row")


def _add_stages(facts: Table, plan: DryRun, stages: Stages) -> None:
    sample = f"{stages.sample:,} scored exactly, to fit on; " if stages.sample else ""
    after = "as many as the recall takes, which the fit will tell; none in the time below"
    after = after if stages.escalated is None else f"about {stages.escalated:,}"
    facts.add_row(
        "forward pass", f"{_device(stages.forward)} on the device, {stages.forward.both:,.3g} as the job runs"
    )
    facts.add_row("stages", f"{sample}{plan.records:,} predicted; then scored exactly: {after}")


def _device(pilot: Pilot) -> str:
    return "no record could be decoded" if pilot.device is None else f"{pilot.device:,.3g} images/s"


def what_would_help(plan: DryRun, pilot: Pilot) -> str:
    """A remedy for the bottleneck, in words."""
    needed = pilot.workers_needed
    if pilot.device is None:
        return "see why the records fail first"
    if pilot.bottleneck == "device":
        if needed < pilot.workers:
            return f"decoding keeps up; --workers {needed} would do"
        passing = plan.stages is not None and pilot is plan.stages.forward  # always in float32
        helps = "more devices" if passing else "more devices or a lower --precision"
        return f"decoding keeps up; {helps} would help, more --workers would not"
    most = max(1, plan.cores - plan.on_processor)
    if needed <= most:
        return f"--workers {needed} would keep the device busy"
    if max(1, pilot.workers) < most:
        return f"--workers {most} would help, though it takes {needed} to keep the device busy"
    return f"all {plan.cores} cores are taken, and {needed} workers would keep the device busy: more cores would help"


def _assumed(plan: DryRun) -> str:
    if plan.processes == 1:
        return ", of one process"
    return f"; {plan.processes} processes, each taken to be as fast as this one"


def _workers(count: int) -> str:
    return {0: "a thread", 1: "1 worker"}.get(count, f"{count} workers")


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def _about_views(views: Views, plain: bool) -> str:
    low, high = views.recipe.scale
    recoloured = ", recoloured" if views.recipe.jitter or views.recipe.grey else ""
    itself = "; and the image itself, for its columns" if plain else ""
    return f"{views.count} of each image by seed {views.seed}, crops of {low:.0%} to {high:.0%}{recoloured}{itself}"
