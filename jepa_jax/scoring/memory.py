"""How much of a Jacobian fits: rows per pass and images side by side, from shapes and a budget."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.function import Differentiable
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import Precision

LEAST_IMAGES = 8
"""Images side by side on an accelerator where memory allows, of whatever size: more of a ViT-S fill it no better."""

FILLED = 2e12
"""Multiplications that keep an accelerator busy for some hundredths of a second: beside them, starting its programs is
nothing. Small encoders get there with hundreds of images."""

MOST_IMAGES = 512
"""Images side by side, at most: so many have to be decoded before a step can begin."""

WRITES_LONGER = frozenset[Precision](("bfloat16", "float16", "bfloat16_3x"))
"""Levels at which a GPU writes what it multiplies by each token's slopes longer than it multiplies."""

KHATRI_RAO_SHARE = 1 / 4
"""Of the budget, what the products of MLPs' weights may take: 6 GB for a ViT-S, 11 at ``bfloat16_3x``, eight times as
much for a ViT-B."""

PROCESSES = "JEPA_JAX_PROCESSES"
"""Environment variable: how many processes of one job share this computer's cores and memory."""


def processes_here() -> int:
    """How many processes share this computer; 1 unless `PROCESSES` says more."""
    return max(1, int(os.environ.get(PROCESSES) or 1))


def default_budget(platform: Platform) -> int:
    """Bytes that scoring may take when nothing is said: most of an accelerator, half of what a computer has free."""
    limit = None if platform == "cpu" else (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
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
        parameters: as they are given, and the kernels of the way back.
        forward: what the way back needs of the forward pass.
        pullback: cotangents of all rows of a pass, and what the layer that needs most makes of them.
        jacobian: where it takes several passes, their results and these joined; else it is part of the pullback.
    """

    parameters: int
    forward: int
    pullback: int
    jacobian: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.forward + self.pullback + self.jacobian


def estimate_memory(
    function: Differentiable,
    options: JacobianOptions,
    shape: tuple[int, ...],
    params: Any,
    outputs: int | None = None,
) -> MemoryEstimate | None:
    """Peak memory of scoring by the layers' pullbacks, from their costs: right to about a fifth.

    Args:
        function: what is scored.
        options: how; ``block_size`` and ``images_per_step`` decide.
        shape: of an image, (H, W, 3).
        params: the parameters, or their shapes.
        outputs: K, where it is known: to find it out takes a second.

    Returns:
        The estimate, or None where nothing is known of the function.
    """
    outputs = _outputs(function, params, shape) if outputs is None else outputs
    rows = min(options.block_size or outputs, outputs)
    cost = function.cost(shape, rows, options.chosen_schedule, options.products)
    if cost is None:
        return None
    images = options.images_per_step or 1
    jacobian = 0 if rows == outputs else 2 * cost.jacobian // rows * outputs
    given = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    return MemoryEstimate(given + cost.kernels, images * cost.residuals, images * cost.workspace, images * jacobian)


def images_to_fill(function: Differentiable, options: JacobianOptions, shape: tuple[int, ...], outputs: int) -> int:
    """Images of a shape (H, W, 3) side by side that fill an accelerator, if memory allows."""
    cost = function.cost(shape, outputs, options.chosen_schedule, options.products)
    if cost is None:
        return LEAST_IMAGES
    return int(min(MOST_IMAGES, max(LEAST_IMAGES, FILLED // max(1, cost.pullback))))


def _outputs(function: Differentiable, params: Any, shape: tuple[int, ...]) -> int:
    """K."""
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(function, params, image).shape[1]


def plan_passes(
    function: Differentiable, params: Any, options: JacobianOptions, batch_shape: tuple[int, ...], budget: int
) -> JacobianOptions:
    """Fill in what options leave open: as many rows per pass and images side by side as a budget allows.

    Args:
        function: what is scored; of one that is not composed of layers nothing is known, and its options stay.
        params: its parameters.
        options: what the user wants; a number given there is kept.
        batch_shape: (B, H, W, 3).
        budget: bytes.

    Raises:
        ArgumentError: not even one row at a time fits.
    """
    if not options.uses_rules(function.layered):
        return options
    shape = batch_shape[1:]
    outputs = _outputs(function, params, shape)

    def need(tried: JacobianOptions) -> int:
        estimate = estimate_memory(function, tried, shape, params, outputs)
        assert estimate is not None
        return estimate.total

    def of(rows: int, images: int) -> int:
        return need(dataclasses.replace(options, block_size=rows, images_per_step=images))

    rows = options.block_size or outputs
    images = options.images_per_step or 1
    if options.block_size is None:
        passes = 1
        if of(1, images) > budget:
            rows = 1  # it is refused below
        while of(rows, images) > budget and rows > 1:
            passes += 1
            rows = math.ceil(outputs / passes)
    if of(rows, images) > budget:
        *frames, height, width, _ = shape if len(shape) > 2 else (*shape, 1, 1)
        of_frames, fewer = (f", {frames[0]} frames,", ", fewer frames") if frames else ("", "")
        raise ArgumentError(
            f"memory={budget / 2**20:,.0f} MiB is too small: {rows} row(s) of one image's Jacobian at "
            f"{height} x {width} pixels{of_frames} take about {of(rows, images) / 2**20:,.0f} MiB; "
            f"give more memory (by default half of what is free), a smaller block_size{fewer} or a smaller image_size."
        )
    if options.images_per_step is None and options.platform != "cpu":
        each = of(rows, 2) - of(rows, 1)
        more = (budget - of(rows, 1)) // max(1, each)
        images = min(1 + more, images_to_fill(function, options, shape, outputs), batch_shape[0])
    planned = dataclasses.replace(options, block_size=rows, images_per_step=images)
    if options.platform != "gpu" or options.kernels == "off" or options.precision not in WRITES_LONGER:
        return planned
    prepared = dataclasses.replace(planned, khatri_rao=True)
    more = need(prepared) - need(planned)
    return prepared if more <= KHATRI_RAO_SHARE * budget and need(prepared) <= budget else planned


def halved(options: JacobianOptions, images: int, rows: int) -> JacobianOptions | None:
    """The next smaller plan after one that did not fit, or None: without what only saves time, then half the images,
    then half the rows.

    Args:
        options: what was tried.
        images: how many it took side by side.
        rows: how many rows or columns in one pass.
    """
    if options.khatri_rao:
        return dataclasses.replace(options, khatri_rao=False)
    if images > 1:
        return dataclasses.replace(options, images_per_step=images // 2)
    return dataclasses.replace(options, block_size=math.ceil(rows / 2), images_per_step=1) if rows > 1 else None
