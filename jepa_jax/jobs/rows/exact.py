"""One step of a job: a batch shared out among this process's devices, without a word between them.

Images are independent, so each device computes its own part of the batch, on the axis ``data`` of a mesh of the local
devices. The compiled step holds no collective, whatever other processes do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jepa_jax.encoders import Encoder
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.output.columns import record_columns, why_no_score
from jepa_jax.numerics.batches import multiple
from jepa_jax.scoring.batches import default_batch_size
from jepa_jax.scoring.meshes import local_mesh
from jepa_jax.scoring.noise import Noise
from jepa_jax.scoring.programs import Program, placing
from jepa_jax.scoring.readings import ScoreResult
from jepa_jax.scoring.scorer import Scorer


class ExactStep:
    """Computes exact scores, from the Jacobian of each image.

    Args:
        encoder: scores the images.
        options: of the job.
        batch_size: images in a step, every view counted, by default `default_batch_size`; it is made a whole number of
            records, and rounded up to a multiple of the local devices.
        report: is told in words when memory runs out and the step is made smaller.
        noise: of the encoder's Jacobian, where it was measured.
    """

    def __init__(
        self,
        encoder: Encoder,
        options: JobOptions,
        batch_size: int | None = None,
        report: Callable[[str], None] = lambda message: None,
        noise: Noise | None = None,
    ):
        devices = jax.local_devices()
        self.recipe = options.input_recipe(encoder.spec)
        batch_size = batch_size or default_batch_size(encoder.spec)
        self.records = max(1, multiple(batch_size, len(devices)) // self.recipe.count)
        self.batch_size = multiple(self.records * self.recipe.count, len(devices))
        self.image_shape: tuple[int, ...] = encoder.spec.input_shape
        mesh = local_mesh()
        score = dataclasses.replace(options.score, mesh=mesh)
        self.scorer = Scorer(encoder, score if noise is None else dataclasses.replace(score, noise=noise), report)
        place = devices[0] if mesh is None else NamedSharding(mesh, PartitionSpec())
        with placing(f"the encoder {encoder.spec.name}"):
            self.scorer.params = jax.device_put(self.scorer.params, place)

    def __call__(self, images: np.ndarray) -> ScoreResult:
        """See `Step`."""
        return self.scorer(images)

    def columns(self, result: ScoreResult, records: int, optional: tuple[str, ...]) -> dict[str, np.ndarray]:
        """See `Step`."""
        return record_columns(result, records, self.recipe, optional)

    def why_no_score(self, row: Mapping[str, Any]) -> str | None:
        """See `Step`."""
        return why_no_score(row, self.scorer.options.eps)

    def batches_at_once(self) -> int:
        """How many to compute at the same time: two, where parts of a batch are computed concurrently.

        So no core waits for the end of a batch. The second takes none of the memory that is planned, but for its
        images and results.
        """
        return 2 if self.compile().at_once > 1 and self.scorer.options.tolerance is None else 1

    def compile(self) -> Program:
        """The compiled step, with its plan, memory and compile time, without running it."""
        np.empty((self.batch_size, *self.image_shape), np.float32)  # MemoryError where not even the images fit
        return self.scorer.program(jax.ShapeDtypeStruct((self.batch_size, *self.image_shape), np.float32))

    def get_ready(self) -> str:
        """See `Step`."""
        program = self.compile()
        return (
            f"Compiled in {program.compile_seconds:.1f} s: batches of {self.batch_size}, "
            f"{program.plan.block_size or 'all'} rows of the Jacobian at a time, "
            f"{program.peak_bytes / 2**20:,.0f} MiB."
        )
