"""One step of a job: a batch shared out among this process's devices, without a word between them.

Images are independent, so each device computes its own part of the batch, on the axis ``data`` of a mesh of the local
devices. The compiled step holds no collective, whatever other processes do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.jobs.options import JobOptions
from jepa_jax.scorer import Program, Scorer
from jepa_jax.scoring import ScoreResult


class Step:
    """Scores batches of one size on all local devices.

    Args:
        encoder: scores the images.
        options: of the job.
        batch_size: images in a step, every view counted; it is made a whole number of records, and rounded up to a
            multiple of the local devices.
        report: is told in words when memory runs out and the step is made smaller.
    """

    def __init__(
        self,
        encoder: Encoder,
        options: JobOptions,
        batch_size: int,
        report: Callable[[str], None] = lambda message: None,
    ):
        devices = jax.local_devices()
        _require_threads(devices)
        self.recipe = options.input_recipe(encoder.spec)
        self.records = max(1, _multiple(batch_size, len(devices)) // self.recipe.count)
        self.batch_size = _multiple(self.records * self.recipe.count, len(devices))
        self.image_shape = (encoder.spec.image_size, encoder.spec.image_size, 3)
        mesh = Mesh(np.array(devices)[:, None], ("data", "rows")) if len(devices) > 1 else None
        self.scorer = Scorer(
            encoder,
            precision=options.precision,
            spectrum=not options.score_only,
            mesh=mesh,
            memory=options.memory,
            tolerance=options.tolerance,
            report=report,
        )
        if mesh is None:
            self.scorer.params = jax.device_put(self.scorer.params, devices[0])
        else:
            self.scorer.params = jax.device_put(self.scorer.params, NamedSharding(mesh, PartitionSpec()))

    def __call__(self, images: np.ndarray) -> ScoreResult:
        """Score float32 [batch_size, H, W, 3]; waits for the device."""
        return self.scorer(images)

    def compile(self) -> Program:
        """The compiled step, with its plan, memory and compile time, without running it."""
        np.empty((self.batch_size, *self.image_shape), np.float32)  # MemoryError where not even the images fit
        return self.scorer.program(jax.ShapeDtypeStruct((self.batch_size, *self.image_shape), np.float32))


def _multiple(size: int, of: int) -> int:
    """The least multiple that is no smaller."""
    return -(-size // of) * of


def _require_threads(devices: Sequence[Any]) -> None:
    """Refuse several CPU devices on too few threads.

    XLA's CPU devices share one pool of threads, as many as there are cores or as ``NPROC`` says. A device holds a
    thread while its linear algebra waits for others: with none left over (measured: 2 devices on 2 cores) all wait
    for ever.
    """
    threads = int(os.environ.get("NPROC") or os.cpu_count() or 1)
    if devices[0].platform == "cpu" and len(devices) > 1 and threads < 2 * len(devices):
        raise ArgumentError(
            f"{len(devices)} CPU devices on {threads} threads would wait for one another for ever: set the "
            f"environment variable NPROC={2 * len(devices)} or more, or use fewer devices."
        )
