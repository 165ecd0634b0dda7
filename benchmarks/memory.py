"""Peak memory: as planned, as XLA accounts for it, and as the operating system or the device saw it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jepa_jax as jj
from benchmarks.contest import encoder_spec
from benchmarks.processes import call
from jepa_jax.encoders.drawn import random_encoder
from jepa_jax.scoring.memory import estimate_memory


@dataclass(frozen=True)
class Case:
    """One encoder at one size.

    Attributes:
        model: ``toy``, or the known name of a DINOv2.
        image_size: side, pixels.
        scored: whether an image is scored; otherwise the program is compiled alone.
    """

    model: str
    image_size: int
    scored: bool = True


@dataclass(frozen=True)
class Memory:
    """Peak memory of scoring one image, each case in a fresh process."""

    cases: tuple[Case, ...]

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Measure every case."""
        rows: list[dict[str, Any]] = []
        for case in self.cases:
            print(f"  {case.model} at {case.image_size} px", flush=True)
            rows.append(call("benchmarks.memory:measure", dataclasses.asdict(case)))
            record({"cases": rows})
        return {"cases": rows}


def measure(model: str, image_size: int, scored: bool) -> dict[str, Any]:
    """One case, in this process."""
    encoder = random_encoder(encoder_spec(model).at_image_size(image_size))
    image = np.random.default_rng(0).standard_normal((1, image_size, image_size, 3)).astype(np.float32)
    scorer = jj.Scorer(encoder)
    scorer.params = jax.device_put(scorer.params)
    program = scorer.program(image)
    estimate = estimate_memory(encoder.function, program.plan, image.shape[1:], encoder.params)
    row: dict[str, Any] = {
        "model": model,
        "image_size": image_size,
        "rows_per_pass": program.plan.block_size,
        "planned_bytes": estimate.total if estimate else None,
        "xla_bytes": program.peak_bytes,
    }
    if scored:
        peak = _measured_peak(lambda: scorer(image), encoder.parameter_bytes)
        row |= {"measured_bytes": peak, "planned_over_measured": row["planned_bytes"] / peak if peak else None}
    return row


def _measured_peak(run: Callable[[], Any], held: int) -> int | None:
    """Bytes that a run takes at its peak, with those that it holds already; None where nothing can be asked."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        run()
        return (device.memory_stats() or {}).get("peak_bytes_in_use")
    before = _forget_peak()
    run()
    return before and resident_bytes("VmHWM") - before + held


def _forget_peak() -> int | None:
    """Let the operating system start anew with this process's peak; what is resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return resident_bytes("VmRSS")
    except OSError:
        return None


def resident_bytes(field: str) -> int:
    """Of Linux's account of this process: ``VmRSS``, resident now, or ``VmHWM``, the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
