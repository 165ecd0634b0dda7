"""What kind of hardware computes: asked of the devices in use, once, and then handed on as an argument.

A computer with a GPU has CPU devices too, so "which backend is the default?" is the wrong question: a mesh of CPU
devices must get a CPU's choices.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal

Platform = Literal["cpu", "gpu", "tpu"]
"""A choice by platform is one of speed, or of what exists there; every platform computes the same scores."""

_PLATFORMS: dict[str, Platform] = {"cpu": "cpu", "gpu": "gpu", "cuda": "gpu", "rocm": "gpu", "tpu": "tpu"}
"""By the names that JAX gives to devices."""


def platform_of(devices: Iterable[Any] | None = None) -> Platform:
    """The platform of some devices, which are all of one kind.

    Args:
        devices: of a mesh, or those that hold an array; None for the device that JAX computes on by default.

    Returns:
        Its platform. A device of a kind unknown here counts as a TPU: an accelerator of which no fast float64 may be
        expected.
    """
    device = _default_device() if devices is None else next(iter(devices))
    return _PLATFORMS.get(device.platform, "tpu")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_device() -> Any:
    import jax  # here, so that what only names platforms does not wait for it

    # A device, the name of a platform, or None.
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if chosen is None:
        return jax.local_devices()[0]
    return jax.local_devices(backend=chosen)[0] if isinstance(chosen, str) else chosen
