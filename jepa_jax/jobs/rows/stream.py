"""From decoded records to outcomes: batches are formed, computed while the next is made, and fetched.

Threads keep the device at work; the next batch lies ready when it has finished one. On a CPU that scores parts of
a batch concurrently (`jepa_jax.scoring.concurrency`), two batches are under way, so that no core waits for the other
at the end of one.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from jepa_jax.errors import OutOfMemoryError
from jepa_jax.images.decoding import Decoded
from jepa_jax.jobs.output.columns import RecordScores
from jepa_jax.jobs.rows.step import Step, out_of_memory
from jepa_jax.numerics.platforms import cores

LONG_ENOUGH = 10.0
"""Seconds of a run that tell something of its bottleneck: in shorter ones the workers' start is much of it."""

BUSY = 0.8
"""Share of the time in which a device that decoding keeps supplied is busy at least."""


@dataclass
class Outcome:
    """A record with its scores, or with the reason why it has none."""

    record: Decoded
    row: RecordScores | None
    reason: str = ""


class DeviceClock:
    """How long the device was at work, and what it still has to do.

    The time begins with the first batch on the device: what was compiled before is left out.
    """

    def __init__(self):
        self._busy = 0.0
        self._begun: float | None = None
        self._running: list[tuple[float, int]] = []  # since when, how many images
        self._since = 0.0
        self._queued: list[int] = []
        self._took: float | None = None
        self._lock = threading.Lock()

    def expect(self, images: int) -> None:
        """A batch of so many images is handed over, and begins once the device is free."""
        with self._lock:
            self._queued.append(images)

    def run(self, step: Step, images: np.ndarray) -> Any:
        """Score a batch."""
        with self._lock:
            begun = self._now()
            own = begun, self._queued.pop(0) if self._queued else len(images)
            self._begun = self._begun or begun
            self._running.append(own)
        try:
            result = step(images)
            self._took = time.monotonic() - begun
            return result
        finally:
            with self._lock:
                self._now()
                self._running.remove(own)

    def _now(self) -> float:
        """The time; what several batches do at the same time counts once."""
        now = time.monotonic()
        self._busy += now - self._since if self._running else 0.0
        self._since = now
        return now

    @property
    def share(self) -> float:
        """Share of that time in which the device was busy."""
        return min(1.0, self._busy / self.seconds)

    @property
    def seconds(self) -> float:
        """Since the first batch went to the device."""
        return max(1e-3, time.monotonic() - self._begun) if self._begun is not None else 1e-3

    def verdict(self, workers: int) -> str:
        """In words, that decoding was the bottleneck of a run with so many workers, and what helps; else nothing."""
        if self.seconds < LONG_ENOUGH or self.share >= BUSY:
            return ""
        there = cores()
        remedy = (
            f"more --workers than {workers} would help, of {there} cores"
            if max(1, workers) < there
            else f"all {there} cores of this machine may decode already, with --workers {workers}"
        )
        return f"Decoding was the bottleneck: the device was busy {self.share:.0%} of the time; {remedy}."

    def under_way(self) -> str:
        """In words: the batches that the device has been given, and how long they take."""
        with self._lock:
            running, queued, took = list(self._running), list(self._queued), self._took
        batches = len(running) + len(queued)
        if not batches:
            return "the record in hand, for nothing is on the device"
        images = sum(count for _, count in running) + sum(queued)
        words = "the batch on the device" if batches == 1 else f"the {batches} batches on the device"
        if took is None:
            return f"{words} ({images} images, the first ones: how long they take is not known)"
        now, rounds = time.monotonic(), -(-len(queued) // max(1, len(running)))
        rest = max((took - (now - begun) for begun, _ in running), default=0.0)
        return f"{words} ({images} images, about {max(1.0, rest + rounds * took):.0f} s)"


def score_stream(
    decoded: Iterable[Decoded],
    step: Step,
    columns: tuple[str, ...],
    clock: DeviceClock,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[Outcome, None, None]:
    """Score records as they come. Records without an image pass through; scored ones follow in their order.

    Args:
        decoded: the records.
        step: scores a batch of whole records. It is filled up with copies of its last input, because another
            batch size would have to be compiled.
        columns: optional columns to fetch.
        clock: is told when the device worked.
        stopped: asked before each batch; once it says yes, the batches on the device are finished and
            nothing else is begun.

    Raises:
        JobError: the device ran out of memory.
    """
    pending: list[Decoded] = []
    in_flight: collections.deque[tuple[list[Decoded], Future[dict[str, np.ndarray]]]] = collections.deque()
    at_once = step.batches_at_once()
    with ThreadPoolExecutor(at_once, thread_name_prefix="device") as device:

        def dispatch() -> None:
            images = np.empty((step.batch_size, *step.image_shape), np.float32)
            used = len(pending) * step.recipe.count
            np.concatenate([record.inputs for record in pending if record.inputs is not None], out=images[:used])
            images[used:] = images[used - 1]
            waiting = [dataclasses.replace(record, inputs=None) for record in pending]  # its images are copied
            clock.expect(used)
            in_flight.append((waiting, device.submit(score, images, len(pending))))
            pending.clear()

        def score(images: np.ndarray, records: int) -> dict[str, np.ndarray]:
            return step.columns(clock.run(step, images), records, columns)

        try:
            for record in decoded:
                if stopped():
                    pending.clear()
                    break
                if record.inputs is None:
                    yield Outcome(record, None, record.reason)
                    continue
                pending.append(record)
                if len(pending) == step.records:
                    dispatch()
                    if len(in_flight) > at_once:
                        yield from _outcomes(*in_flight.popleft(), step)
            if pending:
                dispatch()
            while in_flight:
                yield from _outcomes(*in_flight.popleft(), step)
        except (OutOfMemoryError, MemoryError) as error:
            raise out_of_memory(step, error) from error


def _outcomes(records: list[Decoded], future: Future[dict[str, np.ndarray]], step: Step) -> Iterator[Outcome]:
    arrays = future.result()
    for i, record in enumerate(records):
        row = {name: values[i] for name, values in arrays.items()}
        if (reason := step.why_no_score(row)) is None:
            yield Outcome(record, row)
        else:
            yield Outcome(record, None, reason)
