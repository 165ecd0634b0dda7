"""Where a figure was measured: device, processor, versions, commit, date and load."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from jepa_jax._version import __version__

HOME = Path(__file__).resolve().parents[2]
"""The folder that holds this package."""

COMMIT_VARIABLE = "BENCHMARK_COMMIT"
"""Names the commit where the tree has come without its git directory."""


def describe() -> dict[str, Any]:
    """Device, versions and commit, so that a figure can be repeated."""
    now = datetime.now(UTC)
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": processor_name(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": os.getloadavg()[0],
        "jepa_jax": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "torch", "numpy")},
        "commit": commit(),
        "date": now.date().isoformat(),
        "begun": now.isoformat(timespec="seconds"),
    }


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version(package: str) -> str | None:
    """Of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """What the processor calls itself; on Arm, where the kernel gives numbers alone, what lscpu makes of them."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found is None:
            listed = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
            found = re.search(r"^Model name:\s*(.+)$", listed, re.MULTILINE)
    except (OSError, subprocess.CalledProcessError):
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit that this package is run from, with ``-dirty`` where it was changed since; None of a release."""
    if not (HOME / ".git").exists():  # installed: a git directory further up is something else's
        return os.environ.get(COMMIT_VARIABLE)
    command = ["git", "-C", str(HOME), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:  # no git
        return None
