"""Which GPUs each of several processes on one machine gets: its own, never all the same.

Asked of the operating system and the environment alone: the process that starts the others must not open a GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from jepa_jax.errors import ArgumentError

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable: the GPUs that a process sees, by number or name, separated by commas."""

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
"""Packages by one of which JAX computes on NVIDIA GPUs."""


def gpus_here(environment: Mapping[str, str] = os.environ, root: Path = Path("/dev")) -> list[str]:
    """The GPUs that JAX would compute on here, as `VISIBLE` names them; none where it would not compute on GPUs."""
    platforms = environment.get("JAX_PLATFORMS", "")
    wanted = not platforms or platforms.split(",")[0] in ("cuda", "gpu")
    if not wanted or not any(map(find_spec, PLUGINS)):
        return []
    visible = environment.get(VISIBLE)
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    files = (re.fullmatch(r"nvidia(\d+)", path.name) for path in root.glob("nvidia*"))
    return sorted((found[1] for found in files if found), key=int)


def shares(gpus: list[str], processes: int) -> list[dict[str, str]]:
    """What to add to the environment of each of so many processes.

    Raises:
        ArgumentError: there are fewer GPUs than processes.
    """
    if not gpus:
        return [{} for _ in range(processes)]
    if len(gpus) < processes:
        raise ArgumentError(
            f"processes={processes}: this machine has {len(gpus)} GPU(s) for them ({', '.join(gpus)}), and each needs "
            f"one of its own; use {len(gpus)} at most. One process alone computes on all of them."
        )
    return [{VISIBLE: ",".join(gpus[process::processes])} for process in range(processes)]
