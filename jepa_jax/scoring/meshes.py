"""Meshes of devices: what a user may pass, and what XLA's CPU devices need in order not to wait for each other."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jepa_jax.errors import ArgumentError

AXES = ("data", "rows")
"""Images, and rows of one image's Jacobian."""


def usable_mesh(mesh: Mesh) -> Mesh:
    """The same devices under the same names, with axes of the kind that scoring is written for.

    `jax.make_mesh` makes ``Explicit`` axes, which type every array by its sharding; sharding is decided here by
    `jax.shard_map` alone, for which the axes outside of it are ``Auto``.

    Raises:
        ArgumentError: it has other axes, or more CPU devices than threads for them.
    """
    if tuple(mesh.axis_names) != AXES:
        raise ArgumentError(
            f"mesh has axes {tuple(mesh.axis_names)}; it needs ('data', 'rows'), as "
            "jax.make_mesh((devices, 1), ('data', 'rows')) makes it."
        )
    require_threads(mesh.devices.flat)
    return Mesh(mesh.devices, AXES)  # Auto is what this constructor makes


def local_mesh() -> Mesh | None:
    """The process's own devices, sharing images; None where there is one."""
    devices = jax.local_devices()
    return Mesh(np.array(devices)[:, None], AXES) if len(devices) > 1 else None


def require_threads(devices: Iterable[Any]) -> None:
    """Refuse several CPU devices on too few threads.

    XLA's CPU devices share one pool of threads, as many as there are cores or as ``NPROC`` says. A device holds a
    thread while its linear algebra waits for others: with none left over (measured: 2 devices on 2 cores) all wait
    for ever.
    """
    count = sum(device.platform == "cpu" for device in devices)
    threads = int(os.environ.get("NPROC") or os.cpu_count() or 1)
    if count > 1 and threads < 2 * count:
        raise ArgumentError(
            f"{count} CPU devices on {threads} threads would wait for one another for ever: set the "
            f"environment variable NPROC={2 * count} or more, or use fewer devices."
        )
