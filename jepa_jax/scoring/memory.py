"""How much of a Jacobian fits: rows per pass and images side by side, from shapes and a budget."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jepa_jax.encoders import EncoderFunction
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.plan import JacobianPlan

MOST_IMAGES = 8
"""Images side by side on an accelerator, at most: more no longer fill it better."""


PROCESSES = "JEPA_JAX_PROCESSES"
"""Environment variable: how many processes of one job share this computer's cores and memory."""


def processes_here() -> int:
    """How many processes share this computer; 1 unless `PROCESSES` says more."""
    return max(1, int(os.environ.get(PROCESSES) or 1))


def default_budget() -> int:
    """Bytes that scoring may take when nothing is said: most of an accelerator, half of what a computer has free."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    return int(0.9 * limit) if limit else free_host_bytes() // (2 * processes_here())


def free_host_bytes(root: Path = Path("/")) -> int:
    """Memory that new work may take: what the system has free, and what the container's limit leaves of it."""
    meminfo, group = root / "proc/meminfo", root / "sys/fs/cgroup"
    if not meminfo.is_file():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = int(_fields(meminfo, ":")["MemAvailable"].split()[0]) * 1024
    limit = group / "memory.max"
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        # Cached files count as used there, and are given up when memory is wanted.
        used = int((group / "memory.current").read_text()) - int(_fields(group / "memory.stat", " ")["inactive_file"])
        free = min(free, max(0, int(most) - used))
    return free


def _fields(path: Path, separator: str) -> dict[str, str]:
    return dict(line.split(separator, 1) for line in path.read_text().splitlines())


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that scoring takes at its peak, by part.

    Attributes:
        parameters: as they are given, and once more as the sweep wants them.
        forward: what the sweep needs of the forward pass.
        sweep: cotangents of all rows of a pass, and what attention makes of them.
        jacobian: where it takes several passes, their results and these joined; else it is part of the sweep.
    """

    parameters: int
    forward: int
    sweep: int
    jacobian: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.forward + self.sweep + self.jacobian


def estimate_memory(spec: ViTSpec, plan: JacobianPlan, image_shape: tuple[int, ...], params: Any) -> MemoryEstimate:
    """Peak memory of scoring by the layer rules, without XLA: a first guess, right to about a fifth.

    Args:
        spec: the architecture.
        plan: how; ``block_size`` and ``images_per_step`` decide.
        image_shape: (H, W, 3).
        params: the parameters, or their shapes.
    """
    itemsize = 8 if plan.precision == "float64" else 4
    patches = (image_shape[0] // spec.patch_size) * (image_shape[1] // spec.patch_size)
    tokens = patches + spec.prefix_tokens
    outputs = spec.embedding_size
    rows = min(plan.block_size or outputs, outputs)
    hidden = spec.mlp_width * (2 if spec.activation == "swiglu" else 1)
    saved = spec.depth * tokens * (5 * spec.width + hidden)
    # Around attention: about five arrays of all heads, and of one head the logits' cotangent with what makes it.
    sweep = 5.3 * tokens * rows * spec.width + 2.4 * tokens * tokens * rows
    columns = patches * min(spec.width, 3 * spec.patch_size**2) * outputs * (0 if rows == outputs else 2)
    each = (plan.images_per_step or 1) * itemsize
    parameters = 2 * 4 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return MemoryEstimate(parameters, each * saved, int(each * sweep), each * columns)


def fit_plan(
    function: Callable[..., Any],
    params: Any,
    plan: JacobianPlan,
    batch_shape: tuple[int, ...],
    budget: int,
) -> JacobianPlan:
    """Fill in what a plan leaves open: as many rows per pass and images side by side as a budget allows.

    Args:
        function: an encoder's; of any other function nothing is known, and its plan stays as it is.
        params: its parameters.
        plan: what the user wants; a number given there is kept.
        batch_shape: (B, H, W, 3).
        budget: bytes.

    Raises:
        ArgumentError: not even one row at a time fits.
    """
    if not isinstance(function, EncoderFunction) or not plan.uses_rules(ours=True):
        return plan
    spec, image_shape = function.vit, batch_shape[1:]

    def need(rows: int, images: int) -> int:
        tried = dataclasses.replace(plan, block_size=rows, images_per_step=images)
        return estimate_memory(spec, tried, image_shape, params).total

    rows = plan.block_size or spec.embedding_size
    images = plan.images_per_step or 1
    if plan.block_size is None:
        sweeps = 1
        while need(rows, images) > budget and rows > 1:
            sweeps += 1
            rows = math.ceil(spec.embedding_size / sweeps)
    if need(rows, images) > budget:
        raise ArgumentError(
            f"memory={budget / 2**20:,.0f} MiB is too small: {rows} row(s) of one image's Jacobian at "
            f"{image_shape[0]} x {image_shape[1]} pixels take about {need(rows, images) / 2**20:,.0f} MiB; "
            "give more memory (by default half of what is free), a smaller block_size or a smaller image_size."
        )
    if plan.images_per_step is None and jax.default_backend() != "cpu":
        while images < min(MOST_IMAGES, batch_shape[0]) and need(rows, images + 1) <= budget:
            images += 1
    return dataclasses.replace(plan, block_size=rows, images_per_step=images)


def halved(plan: JacobianPlan, images: int, rows: int) -> JacobianPlan | None:
    """The next smaller plan after one that did not fit, or None: half the images, then half the rows.

    Args:
        plan: what was tried.
        images: how many it took side by side.
        rows: how many rows or columns in one pass.
    """
    if images > 1:
        return dataclasses.replace(plan, images_per_step=images // 2)
    return dataclasses.replace(plan, block_size=math.ceil(rows / 2), images_per_step=1) if rows > 1 else None
