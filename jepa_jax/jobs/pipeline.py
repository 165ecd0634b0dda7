"""Decoding ahead of the device, in worker processes or in a thread, bounded in memory."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from jepa_jax.encoders.specs import PreprocessSpec
from jepa_jax.errors import JobError
from jepa_jax.jobs.decoding import Decoded, decode_record
from jepa_jax.jobs.sources.records import Records
from jepa_jax.jobs.worker import Worker

CHUNK = 8
"""Records in one request to a worker: enough that the request costs little beside the decoding."""


def decode_ahead(
    source: Records, indices: Iterable[int], spec: PreprocessSpec, *, workers: int, ahead: int
) -> Generator[Decoded, None, None]:
    """Decode records in order, before they are wanted.

    Args:
        source: the records.
        indices: which of them, in this order.
        spec: the encoder's recipe.
        workers: processes that decode; 0 decodes in a thread of this one, which starts faster.
        ahead: how many decoded images may wait; up to `CHUNK` more per worker are in the making.

    Raises:
        JobError: a worker died.
    """
    pool = _WorkerPool(source, spec, workers)
    waiting: collections.deque[tuple[list[int], Future[list[Decoded]]]] = collections.deque()
    in_flight = images_in_memory(ahead, workers) // CHUNK
    remaining = iter(indices)
    try:
        while True:
            while len(waiting) < in_flight and (chunk := list(itertools.islice(remaining, CHUNK))):
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


def images_in_memory(ahead: int, workers: int) -> int:
    """How many decoded images there are at most, when ``ahead`` of them may wait."""
    return CHUNK * (max(1, -(-ahead // CHUNK)) + max(1, workers))


class _WorkerPool:
    """One thread per worker, which hands it chunks and waits for the images."""

    def __init__(self, source: Records, spec: PreprocessSpec, workers: int):
        self._source, self._spec, self._in_processes = source, spec, workers > 0
        self._threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
        self._own = threading.local()
        self._workers: list[Worker] = []
        self._stopped = False
        self._lock = threading.Lock()

    def submit(self, indices: list[int]) -> Future[list[Decoded]]:
        return self._threads.submit(self._decode, indices)

    def _decode(self, indices: list[int]) -> list[Decoded]:
        locators = self._source.locators
        if not self._in_processes:
            return [decode_record(i, locators[i], self._source.reader, self._spec) for i in indices]
        if not hasattr(self._own, "worker"):
            with self._lock:
                if self._stopped:
                    return []
                self._own.worker = Worker(self._source.reader, self._spec)
                self._workers.append(self._own.worker)
        return self._own.worker.decode([(i, locators[i]) for i in indices])

    def stop(self) -> None:
        """End threads and workers; what is not decoded yet is given up."""
        with self._lock:
            self._stopped = True
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(cancel_futures=True)
