"""Decoding ahead of the device, in worker processes or in a thread, bounded in memory."""

from __future__ import annotations

import collections
import itertools
import math
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from jepa_jax.errors import JobError
from jepa_jax.images.decoding import Decoded, InputRecipe, decode_record
from jepa_jax.images.sources.records import Records
from jepa_jax.images.worker import Worker

CHUNK = 8
"""Inputs in one request to a worker: enough that the request costs little beside the decoding."""


def decode_ahead(
    source: Records, indices: Iterable[int], recipe: InputRecipe, *, workers: int, ahead: int
) -> Generator[Decoded, None, None]:
    """Decode records in order, before they are wanted.

    Args:
        source: the records.
        indices: which of them, in this order.
        recipe: what is scored of each.
        workers: processes that decode; 0 decodes in a thread of this one, which starts faster.
        ahead: how many decoded records may wait; one request more per worker is in the making.

    Raises:
        JobError: a worker died.
    """
    pool = _WorkerPool(source, recipe, workers)
    waiting: collections.deque[tuple[list[int], Future[list[Decoded]]]] = collections.deque()
    size = _request_size(recipe)
    in_flight = _requests(ahead, workers, size)
    remaining = iter(indices)
    try:
        while True:
            while len(waiting) < in_flight and (chunk := list(itertools.islice(remaining, size))):
                waiting.append((chunk, pool.submit(chunk)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            try:
                yield from future.result()
            except EOFError as error:
                raise JobError(
                    f"a {error} while decoding the records {source.keys[chunk[0]]!r} to {source.keys[chunk[-1]]!r} "
                    "or near them; the machine may be out of memory. Whole parts are kept: the same command resumes, "
                    "with --workers 1 in less memory."
                ) from error
    finally:
        pool.stop()


def records_in_memory(recipe: InputRecipe, ahead: int, workers: int) -> int:
    """How many decoded records there are at most, when ``ahead`` of them may wait."""
    size = _request_size(recipe)
    return size * _requests(ahead, workers, size)


def _request_size(recipe: InputRecipe) -> int:
    return max(1, CHUNK // recipe.count)


def _requests(ahead: int, workers: int, size: int) -> int:
    return max(1, math.ceil(ahead / size)) + max(1, workers)


class _WorkerPool:
    """One thread per worker, which hands it chunks and waits for the images."""

    def __init__(self, source: Records, recipe: InputRecipe, workers: int):
        self._source, self._recipe, self._in_processes = source, recipe, workers > 0
        self._threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
        self._own = threading.local()
        self._workers: list[Worker] = []
        self._stopped = False
        self._lock = threading.Lock()

    def submit(self, indices: list[int]) -> Future[list[Decoded]]:
        return self._threads.submit(self._decode, indices)

    def _decode(self, indices: list[int]) -> list[Decoded]:
        records = [(i, self._source.keys[i], self._source.locators[i]) for i in indices]
        if not self._in_processes:
            return [decode_record(*record, self._source.reader, self._recipe) for record in records]
        if not hasattr(self._own, "worker"):
            with self._lock:
                if self._stopped:
                    return []
                self._own.worker = Worker(self._source.reader, self._recipe)
                self._workers.append(self._own.worker)
        return self._own.worker.decode(records)

    def stop(self) -> None:
        """End threads and workers; what is not decoded yet is given up."""
        with self._lock:
            self._stopped = True
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(cancel_futures=True)
