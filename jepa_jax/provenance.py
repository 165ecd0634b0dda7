"""Where a figure comes from: command, commit, versions, device, date."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jepa_jax._version import __version__
from jepa_jax.numerics.platforms import cores

HOME = Path(__file__).resolve().parents[1]
"""The folder that holds this package."""

COMMIT_VARIABLE = "BENCHMARK_COMMIT"
"""Names the commit where the tree has come without its git directory."""


def describe() -> dict[str, Any]:
    """Of a measurement: the machine and its load, versions and commit, so that it can be repeated."""
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


def origin() -> dict[str, str]:
    """What a table or a page says of where it comes from, beside its figures."""
    return {
        "command": " ".join(["jepa-jax", *sys.argv[1:]]),
        "commit": commit() or "no checkout",
        "jepa_jax": __version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "date": datetime.now(UTC).date().isoformat(),
    }


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
