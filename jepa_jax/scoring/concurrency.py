"""On a CPU, parts of a batch are scored at the same time, each by a program of its own.

A program for one image leaves cores idle between its products: with two at a time, two cores score the images of a
small encoder 1.8 times as fast, those of a ViT-S 0.93 to 1.15 times, by machine and size. Several images within one
program (`images_per_step`) gain nothing: products become batched ones, which XLA's CPU backend
runs slower.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np

from jepa_jax.numerics.platforms import Platform, cores
from jepa_jax.scoring.memory import processes_here
from jepa_jax.scoring.readings import ScoreResult

Run = Callable[[Any, jax.Array], ScoreResult]
"""``((params, prepared kernels), batch) -> ScoreResult``."""


def concurrency_of(batch_size: int, platform: Platform) -> int:
    """Parts at the same time where memory allows: one per core on a CPU; accelerators have but one queue."""
    if platform != "cpu":
        return 1
    return max(1, min(batch_size, cores() // processes_here()))


def part_size(batch_size: int, at_once: int) -> int:
    """Images in each of the equal parts of a batch: as many as leave a part for every thread, no image twice."""
    return max(size for size in range(1, max(1, batch_size // at_once) + 1) if batch_size % size == 0)


def concurrently(run: Run, size: int, at_once: int) -> Run:
    """Parts of a batch, so many at a time.

    Args:
        run: scores one part.
        size: images in a part; divides the batch.
        at_once: parts at the same time, each in a thread that waits for it.
    """

    def part(float64: bool, weights: Any, images: Any) -> ScoreResult:
        with jax.enable_x64(float64):  # a setting of the caller's thread alone
            return jax.tree.map(np.asarray, run(weights, images))

    def run_all(weights: Any, batch: jax.Array) -> ScoreResult:
        parts = np.asarray(batch).reshape(-1, size, *batch.shape[1:])
        float64 = bool(jax.config.read("jax_enable_x64"))
        with _starting:
            threads = _threads(at_once)
        futures = [threads.submit(part, float64, weights, images) for images in parts]
        try:
            results = [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            wait(futures)  # what they hold is free before anything smaller is tried
            raise
        return jax.tree.map(lambda *leaves: jax.numpy.asarray(np.concatenate(leaves)), *results)

    return run_all


_starting = threading.Lock()


@functools.cache
def _threads(at_once: int) -> ThreadPoolExecutor:
    """One pool per number of at_once: batches that are scored at the same time share it, and with it the memory."""
    return ThreadPoolExecutor(at_once, thread_name_prefix="part")
