"""One step of a job: a batch shared out among this process's devices, without a word between them.

Images are independent, so each device computes its own part of the batch: `jax.shard_map` over a mesh of the
local devices with the one axis ``data``. The compiled step holds no collective, whatever other processes do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.precision import Precision
from jepa_jax.scoring import ScoreResult, score_fn
from jepa_jax.spectrum.spectrum import float64_scope


class Step:
    """Scores batches of one size on all local devices.

    Args:
        encoder: scores the images.
        precision: of the scores.
        batch_size: images in a step, rounded up to a multiple of the local devices.
    """

    def __init__(self, encoder: Encoder, precision: Precision, batch_size: int):
        devices = jax.local_devices()
        _require_threads(devices)
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        self.image_shape = (encoder.spec.image_size, encoder.spec.image_size, 3)
        self._float64 = precision == "float64"
        self._function, params = score_fn(encoder, precision=precision)
        mesh = Mesh(np.array(devices), ("data",))
        self._split = NamedSharding(mesh, PartitionSpec("data"))
        if len(devices) > 1:
            self._function = jax.jit(
                jax.shard_map(
                    self._function,
                    mesh=mesh,
                    in_specs=(PartitionSpec(), PartitionSpec("data")),
                    out_specs=PartitionSpec("data"),
                    check_vma=False,  # a ScoreResult has a static field, which its checker does not know
                )
            )
        with float64_scope(self._float64):
            self._params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))

    def __call__(self, images: np.ndarray) -> ScoreResult:
        """Start scoring float32 [batch_size, H, W, 3]; returns at once, with arrays that are still to come."""
        with float64_scope(self._float64):
            return self._function(self._params, jax.device_put(images, self._split))

    def compile(self) -> Any:
        """The compiled step (`jax.stages.Compiled`), with its text and its memory needs, without running it."""
        with float64_scope(self._float64):
            images = jax.ShapeDtypeStruct((self.batch_size, *self.image_shape), np.float32, sharding=self._split)
            return jax.jit(self._function).lower(self._params, images).compile()


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
