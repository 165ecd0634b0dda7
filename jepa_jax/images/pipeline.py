"""Decoding ahead of the device, in worker processes or in a thread, bounded in memory and in time per record."""

from __future__ import annotations

import collections
import itertools
import math
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from jepa_jax.errors import JobError
from jepa_jax.images.decoding import Decoded, InputRecipe
from jepa_jax.images.decoding_thread import DecodingThread
from jepa_jax.images.sources.records import Records
from jepa_jax.images.worker import Worker

CHUNK = 8
"""Inputs in one request to a worker: enough that the request costs little beside the decoding."""


MOST_WORKERS = 16
"""That are started where nothing is said, at most: of 100 MB each, they decode some 3,000 pictures a second."""

RECORD_SECONDS = 60.0
"""What one record may take to be read and decoded; ordinary ones take a hundredth of a second."""


def decode_ahead(
    source: Records,
    indices: Iterable[int],
    recipe: InputRecipe,
    *,
    workers: int,
    ahead: int,
    record_seconds: float = RECORD_SECONDS,
) -> Generator[Decoded, None, None]:
    """Decode records in order, before they are wanted.

    A record that takes too long, or that crashes the process that decodes it, gets that as its reason; the process is
    replaced, and goes on with the records behind it, while the others decode. In a thread (``workers=0``) nothing can
    be ended: such a thread is left to itself, with the core and the memory that it uses, and another takes over; a
    crash there is this process's own.

    Args:
        source: the records.
        indices: which of them, in this order.
        recipe: what is scored of each.
        workers: processes that decode; 0 decodes in a thread of this one, which starts faster.
        ahead: how many decoded records may wait; one request more per worker is in the making.
        record_seconds: what one record may take.

    Raises:
        JobError: a worker died.
    """
    pool = _WorkerPool(source, recipe, workers, record_seconds)
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


def default_workers(cores: int, processes: int, on_processor: bool) -> int:
    """Workers where nothing is said.

    Args:
        cores: of the machine that its processes may use.
        processes: of the job on this machine, which share them.
        on_processor: whether the encoder runs on those cores too: two workers keep up with it then.
    """
    return 2 if on_processor else max(2, min(MOST_WORKERS, cores // max(1, processes) - 1))


def records_in_memory(recipe: InputRecipe, ahead: int, workers: int) -> int:
    """How many decoded records there are at most, when ``ahead`` of them may wait."""
    size = _request_size(recipe)
    return size * _requests(ahead, workers, size)


def _request_size(recipe: InputRecipe) -> int:
    return max(1, CHUNK // (recipe.count * (recipe.preprocess.frames or 1)))


def _requests(ahead: int, workers: int, size: int) -> int:
    return max(1, math.ceil(ahead / size)) + max(1, workers)


class _WorkerPool:
    """One thread per worker, which hands it chunks and waits for the images."""

    def __init__(self, source: Records, recipe: InputRecipe, workers: int, record_seconds: float):
        self._source, self._recipe, self._seconds = source, recipe, record_seconds
        self._kind = Worker if workers else DecodingThread
        self._threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
        self._own = threading.local()
        self._workers: list[Worker | DecodingThread] = []
        self._stopped = False
        self._lock = threading.Lock()

    def submit(self, indices: list[int]) -> Future[list[Decoded]]:
        return self._threads.submit(self._decode, indices)

    def _decode(self, indices: list[int]) -> list[Decoded]:
        records = [(i, self._source.keys[i], self._source.locators[i]) for i in indices]
        done: list[Decoded] = []
        while len(done) < len(records):
            worker = self._worker()
            if worker is None:
                return []
            done += worker.decode(records[len(done) :], self._seconds)
            if len(done) < len(records):
                done.append(Decoded(indices[len(done)], None, worker.fault))
                self._end(worker)
        return done

    def _worker(self) -> Worker | DecodingThread | None:
        """The calling thread's own; None once all is stopped."""
        with self._lock:
            if self._stopped:
                return None
            if getattr(self._own, "worker", None) is None:
                self._own.worker = self._kind(self._source.reader, self._recipe)
                self._workers.append(self._own.worker)
            return self._own.worker

    def _end(self, worker: Worker | DecodingThread) -> None:
        with self._lock:
            self._own.worker = None
            if not self._stopped:
                self._workers.remove(worker)
        worker.stop()

    def stop(self) -> None:
        """End threads and workers; what is not decoded yet is given up."""
        with self._lock:
            self._stopped = True
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(cancel_futures=True)
