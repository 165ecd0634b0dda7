"""What the command line shows: progress, tables, diagnoses. Nothing here computes."""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
import pyarrow as pa
from etils import epath
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from jepa_jax.cli.streams import lose
from jepa_jax.encoders import Encoder
from jepa_jax.errors import printable
from jepa_jax.images.views import Views
from jepa_jax.jacobian import check_backend
from jepa_jax.jobs import Progress as JobProgress
from jepa_jax.jobs import ShardReport, Summary
from jepa_jax.jobs.dry_run import DryRun
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.parquet import read_parquet


class _Rate(ProgressColumn):
    """Images per second, or seconds per image where that reads better; of this run alone."""

    def render(self, task: Any) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("compiling", style="progress.data.speed")
        return Text(f"{speed:.1f} img/s" if speed >= 1 else f"{1 / speed:.1f} s/img", style="progress.data.speed")


class Quiet:
    """Shows nothing: for every process but the first."""

    def start(self, total: int, done: int) -> None:
        """See `jobs.Progress`."""

    def advance(self, scored: int, failed: int, device_busy: float) -> None:
        """See `jobs.Progress`."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def shard_written(self, report: ShardReport) -> None:
        """See `jobs.Progress`."""


class ConsoleProgress:
    """A job's progress as a bar with rate and time left; without a terminal, a line per part."""

    def __init__(self, console: Console):
        self.console = console
        self._bar = Progress(
            TextColumn("scoring"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]} failed, device busy {task.fields[busy]:.0%}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._failed = self._finished = self._total = 0

    def __enter__(self) -> ConsoleProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, total: int, done: int) -> None:
        """See `jobs.Progress`."""
        self._total, self._finished = total, done
        if done:
            self.console.print(f"Resuming: {done:,} of {total:,} records were done before.")
        # The bar counts this run's records alone, or the rate would include what an earlier run did.
        self._task = self._bar.add_task("scoring", total=total - done, failed=0, busy=0.0)

    def advance(self, scored: int, failed: int, device_busy: float) -> None:
        """See `jobs.Progress`."""
        self._failed += failed
        self._bar.update(self._task, advance=scored + failed, failed=self._failed, busy=device_busy)

    def note(self, message: str) -> None:
        """Print it above the bar."""
        self._bar.console.print(message, soft_wrap=True, markup=False)

    def shard_written(self, report: ShardReport) -> None:
        """See `jobs.Progress`."""
        self._finished += report.scored + report.failed
        if not self.console.is_terminal:
            left = report.seconds / report.records_done * (self._total - self._finished)
            self.console.print(
                f"{report.part}: {report.scored} scored, {report.failed} failed; {self._finished}/{self._total} after "
                f"{report.seconds:.0f} s, {report.records_done / report.seconds:.3g} img/s, {left:.0f} s left, device "
                f"busy {report.device_busy:.0%}",
                soft_wrap=True,
            )


class JsonProgress:
    """Adds one JSON line per part to what another progress shows, for whatever collects logs."""

    def __init__(self, shown: JobProgress, stream: TextIO):
        self._shown, self._stream = shown, stream

    def start(self, total: int, done: int) -> None:
        """See `jobs.Progress`."""
        self._shown.start(total, done)

    def advance(self, scored: int, failed: int, device_busy: float) -> None:
        """See `jobs.Progress`."""
        self._shown.advance(scored, failed, device_busy)

    def note(self, message: str) -> None:
        """Pass it on."""
        self._shown.note(message)

    def shard_written(self, report: ShardReport) -> None:
        """See `jobs.Progress`."""
        self._shown.shard_written(report)
        try:
            print(json.dumps({"time": time.time(), **asdict(report)}), file=self._stream, flush=True)
        except BrokenPipeError:
            lose(self._stream)


def print_dry_run(console: Console, plan: DryRun) -> None:
    """The plan of a job, a line per fact."""
    facts = Table(show_header=False, box=None)
    facts.add_row("records", f"{plan.records:,}, of which {plan.records_missing:,} are to be scored")
    if plan.recipe.views is not None:
        facts.add_row("views", _about_views(plan.recipe.views, plan.recipe.plain))
    facts.add_row("parts", f"{plan.shards:,}, of which {plan.shards_missing:,} are to be written")
    facts.add_row("processes", f"{plan.processes}, each {plan.devices} devices and {plan.batch_size} images a step")
    facts.add_row("host memory", f"{plan.host_bytes / 1e6:,.0f} MB of decoded images, per process")
    facts.add_row("rows per pass", f"{plan.rows_per_pass or 'all'} of one image's Jacobian")
    device = "not known here" if plan.device_bytes is None else f"{plan.device_bytes / 1e6:,.0f} MB"
    facts.add_row("device memory", f"{device} per process: parameters, images and intermediates")
    facts.add_row("first compile", f"{plan.compile_seconds:.1f} s")
    console.print(facts)
    console.print("Nothing was scored or written.")


def _about_views(views: Views, plain: bool) -> str:
    low, high = views.recipe.scale
    recoloured = ", recoloured" if views.recipe.jitter or views.recipe.grey else ""
    itself = "; and the image itself, for its columns" if plain else ""
    return f"{views.count} of each image by seed {views.seed}, crops of {low:.0%} to {high:.0%}{recoloured}{itself}"


def print_summary(console: Console, summary: Summary, output: epath.PathLike) -> None:
    """The job's outcome: counts, the spread of the scores, and the extremes."""
    console.print(
        f"[bold]{summary.scored:,} images scored[/], {summary.failed:,} failed"
        + (f", {summary.resumed:,} of them by an earlier run" if summary.resumed else "")
        + f". Table: {escape(str(output))}/part-*.parquet",
        soft_wrap=True,
    )
    if summary.failed:
        console.print(f"Reasons of the failures: {escape(str(output))}/failures.parquet", soft_wrap=True)
    if not summary.scored:
        return
    parts = sorted(epath.Path(output).glob("part-*.parquet"))
    ordered = pa.concat_tables([read_parquet(part, ["key", "score"]) for part in parts]).sort_by("score")
    scores = ordered["score"].to_numpy()
    low, middle, high = np.quantile(scores, [0.05, 0.5, 0.95])
    console.print(f"Score, nats: median {middle:.1f}, 5% to 95% from {low:.1f} to {high:.1f}.")
    count = min(5, len(scores))
    extremes = Table("rarest", "score", "most typical", "score", title="Higher score = denser = more typical")
    keys = ordered["key"].to_pylist()
    for i in range(count):
        low, high = (escape(printable(keys[place])) for place in (i, -1 - i))
        extremes.add_row(low, f"{scores[i]:.1f}", high, f"{scores[-1 - i]:.1f}")
    console.print(extremes)


def print_conversion(console: Console, source: Any, encoder: Encoder, output: Path, verbose: bool) -> None:
    """What was converted from what, and under which digests."""
    facts = Table(show_header=False, box=None)
    facts.add_row("encoder", repr(encoder))
    facts.add_row("format", source.origin["format"])
    for name, digest in source.origin["sha256"].items():
        facts.add_row("source", f"{name}  sha256 {digest}")
    facts.add_row("parameters", f"{encoder.parameter_count:,} in {len(source.rows)} tensors")
    facts.add_row("stored", f"{encoder.parameter_bytes / 1e6:,.1f} MB, kernels in {encoder.spec.kernel_dtype}")
    facts.add_row("recipe", escape(source.recipe))
    for names, reason in source.left_out_here.items():
        facts.add_row("left out", escape(f"{names}: {reason}"))
    facts.add_row("digest", encoder.digest)
    facts.add_row("written to", f"{escape(str(output))} (read back, equal)")
    console.print(facts)
    if verbose:
        tensors = Table("parameter", "source tensors", "source shape", "layout")
        for row in source.rows:
            tensors.add_row(row.target, "\n".join(row.sources), str(row.shape), row.layout)
        console.print(tensors)


def print_diagnosis(console: Console) -> bool:
    """Versions, devices and the backend checks; returns whether all passed."""
    facts = Table(show_header=False, box=None)
    facts.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    for package in ("jepa-jax", "jax", "jaxlib", "flax", "orbax-checkpoint", "numpy", "pillow", "torch"):
        try:
            facts.add_row(package, version(package))
        except PackageNotFoundError:
            facts.add_row(package, "not installed")
    for device in jax.devices():
        facts.add_row("device", f"{device.platform}: {device.device_kind}")
    console.print(facts)
    checks = Table("check against NumPy float64", "relative error", "tolerance", "")
    results = check_backend(platform_of())
    for check in results:
        verdict = "[green]right[/]" if check.passed else "[bold red]WRONG[/]"
        checks.add_row(check.name, f"{check.error:.1e}", f"{check.tolerance:.0e}", verdict)
    console.print(checks)
    passed = all(check.passed for check in results)
    if passed:
        console.print("This backend can be trusted.")
    else:
        console.print(
            "[bold red]This backend computes wrong numbers; jepa_jax refuses it.[/] Install another version of jax "
            f"and jaxlib into {sys.prefix} (0.10.2 is known to be wrong on CPUs)."
        )
    return passed
