"""What the command line shows of a finished job, a conversion, and an installation that was looked at."""

from __future__ import annotations

import math
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jepa_jax.encoders import Encoder
from jepa_jax.errors import printable
from jepa_jax.jacobian import check_backend
from jepa_jax.jobs import Summary
from jepa_jax.jobs.output.columns import layer_columns
from jepa_jax.jobs.output.manifest import read_manifest
from jepa_jax.jobs.output.parts import job_parts
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.parquet import read_parquet
from jepa_jax.paths import PathLike, to_path
from jepa_jax.scored.table import noun_of


def print_summary(console: Console, summary: Summary, output: PathLike) -> None:
    """The job's outcome: counts, the spread of the scores, and the extremes."""
    directory = to_path(output)
    shown = escape(str(output).rstrip("/"))
    manifest = read_manifest(directory) or {}
    console.print(
        f"[bold]{summary.scored:,} {noun_of(manifest)}s scored[/], {summary.failed:,} failed"
        + (f", {summary.resumed:,} of them by an earlier run" if summary.resumed else "")
        + f". Table: {shown}/scores",
        soft_wrap=True,
    )
    if summary.failed:
        console.print(f"Reasons of the failures: {shown}/failures.parquet", soft_wrap=True)
    if not summary.scored:
        return
    layers = {f"layer {n}": layer_columns(n)[0] for n in manifest.get("pinned", {}).get("layers", ())}
    wanted = ["key", "score", *layers.values()]
    found = [read_parquet(part, wanted) for part in job_parts(directory)]
    ordered = pa.concat_tables(found).sort_by("score")
    scores = ordered["score"].to_numpy()
    low, middle, high = np.quantile(scores, [0.05, 0.5, 0.95])
    console.print(f"Score, nats: median {middle:.1f}, 5% to 95% from {low:.1f} to {high:.1f}.")
    for name, column in layers.items():
        if missing := ordered[column].null_count:
            console.print(f"{missing:,} of them have no score of {name}: values below the clip, or no finite number.")
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


PACKAGES = ("jepa-jax", "jax", "jaxlib", "flax", "orbax-checkpoint", "numpy", "pillow", "torch")


def diagnosis() -> dict[str, Any]:
    """Versions, devices and the backend checks, and whether all of these passed: plain data."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    checks = check_backend(platform_of())
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": versions,
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "checks": [
            {
                "name": check.name,
                "error": float(check.error) if math.isfinite(check.error) else None,
                "tolerance": float(check.tolerance),
                "right": bool(check.passed),
            }
            for check in checks
        ],
        "trusted": all(check.passed for check in checks),
    }


def print_diagnosis(console: Console, found: dict[str, Any]) -> None:
    """What `diagnosis` found."""
    facts = Table(show_header=False, box=None)
    facts.add_row("python", found["python"])
    for package, installed in found["packages"].items():
        facts.add_row(package, installed or "not installed")
    for device in found["devices"]:
        facts.add_row("device", device)
    console.print(facts)
    checks = Table("check against NumPy float64", "relative error", "tolerance", "")
    for check in found["checks"]:
        verdict = "[green]right[/]" if check["right"] else "[bold red]WRONG[/]"
        error = "not finite" if check["error"] is None else f"{check['error']:.1e}"
        checks.add_row(check["name"], error, f"{check['tolerance']:.0e}", verdict)
    console.print(checks)
    if found["trusted"]:
        console.print("This backend can be trusted.")
    else:
        console.print(
            "[bold red]This backend computes wrong numbers; jepa_jax refuses it.[/] Install another version of jax "
            f"and jaxlib into {sys.prefix} (0.10.2 is known to be wrong on CPUs)."
        )
