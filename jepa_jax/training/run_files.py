"""The text files of a run: what a resumed run must share, and the log. A kill leaves each of them whole."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from etils import epath

from jepa_jax._version import __version__
from jepa_jax.errors import ArgumentError
from jepa_jax.jobs.writer import write_bytes_atomically
from jepa_jax.training.config import TrainingConfig
from jepa_jax.training.data import examples_digest


def pin_run(config: TrainingConfig, examples: np.ndarray, output: epath.Path) -> None:
    """Write ``config.json``, or refuse a directory whose run has another config or other examples.

    ``steps`` may differ (see `Optimizer`). Runs that were begun before digests were written down have none: what
    examples they are given first is pinned then.

    Raises:
        ArgumentError: the directory holds another run, or its ``config.json`` is damaged.
    """
    file = output / "config.json"
    run = {"jepa_jax_version": __version__, "config": config.to_dict(), "examples_sha256": examples_digest(examples)}
    wanted = json.loads(json.dumps(run))  # as it will be read back, for comparing
    if file.exists():
        found = _read(file)
        if found == wanted:
            return
        _require_same(found, wanted, examples, output)
    write_bytes_atomically(file, (json.dumps(wanted, indent=2) + "\n").encode())


def _read(file: epath.Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
        if not isinstance(found["config"], dict):
            raise ValueError("'config' is no object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(
            f"output {file.parent}: config.json cannot be read ({error}); remove that file if config and data are "
            "still the run's own, or name a new directory."
        ) from error
    return found


def _require_same(found: dict[str, Any], wanted: dict[str, Any], examples: np.ndarray, output: epath.Path) -> None:
    other = [
        name for name in wanted["config"] if name != "steps" and found["config"].get(name) != wanted["config"][name]
    ]
    if other:
        raise ArgumentError(
            f"output {output} holds a run with another {', '.join(other)}; name a new directory or use its config."
        )
    before, now = found.get("examples_sha256"), wanted["examples_sha256"]
    if before is not None and before != now:
        raise ArgumentError(
            f"data {examples.dtype}{list(examples.shape)} with SHA-256 {now[:12]}... is not what the run in output "
            f"{output} was begun with (SHA-256 {before[:12]}...); give that data, or name a new directory."
        )


class MetricsFile:
    """One JSON object per line; lines after the step that a run resumes from are dropped."""

    def __init__(self, path: epath.Path, step: int):
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            write_bytes_atomically(path, "".join(kept).encode())

    def write(self, step: int, terms: dict[str, float], seconds_per_step: float) -> None:
        """Append a line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **terms, "seconds_per_step": round(seconds_per_step, 4)}) + "\n")
