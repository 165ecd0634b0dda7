"""The text files of a run: what a resumed run must share, and the log. A kill leaves each of them whole."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from jepa_jax._version import __version__
from jepa_jax.encoders.identity import is_default
from jepa_jax.errors import ArgumentError
from jepa_jax.paths import AnyPath, write_whole
from jepa_jax.training.config import TrainingConfig
from jepa_jax.training.data import examples_digest


def pin_run(config: TrainingConfig, examples: np.ndarray, output: AnyPath) -> None:
    """Write ``config.json``, or refuse a directory whose run has another config or other examples.

    ``steps`` may differ (see `Optimizer`). Runs that were begun before digests were written down have none: what
    examples they are given first is pinned then. A run that was begun before a config had some field has its default.

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
        if other := differing_fields(found["config"], config) - {"steps"}:
            raise ArgumentError(
                f"output {output} holds a run with another {', '.join(sorted(other))}; name a new directory or "
                "use its config."
            )
        _require_same_examples(found, wanted, examples, output)
    write_whole(file, (json.dumps(wanted, indent=2) + "\n").encode())


def _read(file: AnyPath) -> dict[str, Any]:
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


def differing_fields(plain: dict[str, Any], config: Any) -> set[str]:
    """Fields in which a config's plain form, of this version or an earlier one, differs from a config.

    Args:
        plain: what `TrainingConfig.to_dict` returned, read back from JSON. Fields that it lacks have their defaults.
        config: the config, or any dataclass in it.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}
    values = {name: getattr(config, name) for name in fields}
    other = {name for name in fields.keys() & plain.keys() if not _says(plain[name], values[name])}
    lacking = {name for name in fields.keys() - plain.keys() if not is_default(fields[name], values[name])}
    return other | lacking | (plain.keys() - fields.keys())


def _says(plain: Any, value: Any) -> bool:
    """Whether plain data stands for a value."""
    if isinstance(value, list | tuple):
        return isinstance(plain, list) and len(plain) == len(value) and all(map(_says, plain, value))
    if not dataclasses.is_dataclass(value):
        return plain == value
    if not isinstance(plain, dict):
        return False
    if not any(field.name == "kind" for field in dataclasses.fields(value)):
        plain = dict(plain)
        if plain.pop("kind", type(value).__name__) != type(value).__name__:
            return False
    return not differing_fields(plain, value)


def _require_same_examples(
    found: dict[str, Any], wanted: dict[str, Any], examples: np.ndarray, output: AnyPath
) -> None:
    before, now = found.get("examples_sha256"), wanted["examples_sha256"]
    if before is not None and before != now:
        raise ArgumentError(
            f"data {examples.dtype}{list(examples.shape)} with SHA-256 {now[:12]}... is not what the run in output "
            f"{output} was begun with (SHA-256 {before[:12]}...); give that data, or name a new directory."
        )


class MetricsFile:
    """One JSON object per line; lines after the step that a run resumes from are dropped."""

    def __init__(self, path: AnyPath, step: int):
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            write_whole(path, "".join(kept).encode())

    def write(self, step: int, terms: dict[str, float], seconds_per_step: float) -> None:
        """Append a line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **terms, "seconds_per_step": round(seconds_per_step, 4)}) + "\n")
