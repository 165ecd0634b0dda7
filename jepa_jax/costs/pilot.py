"""A short trial on a job's own records: how fast they are decoded, how fast the device is, and both together.

Each is measured for some seconds over records from all over the job, in short runs of neighbours as requests to
workers hold them; those of a small job come again. Nothing is written.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jepa_jax.images.decoding import Decoded
from jepa_jax.images.pipeline import CHUNK, decode_ahead
from jepa_jax.images.sources import Records
from jepa_jax.images.videos import VideoFile
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.rows.faults import Faults
from jepa_jax.jobs.rows.step import Step
from jepa_jax.jobs.rows.stream import DeviceClock, score_stream

SECONDS = 5.0
"""For which each of the three is measured; longer where a few batches take longer, less where the job itself does."""

WEIGHED = 64
"""Records whose bytes are counted, at most."""

GOLDEN = (math.sqrt(5) - 1) / 2
"""Share of the whole between one place and the next: however many are taken, they are spread evenly."""

SPARE = 1.2
"""Workers should decode so many times as fast as the device computes, since both vary."""


@dataclass(frozen=True)
class Pilot:
    """What a trial found, in one process.

    Attributes:
        records: that were decoded and scored in it, with repetitions.
        failed: share of them that failed.
        start_seconds: from the start of the workers to their first record.
        decoding: records per second of the workers alone.
        device: records per second of the device alone; None where no record of the sample could be decoded.
        both: records per second of the two together, as the job runs them.
        picture_bytes: of a record as it lies in the input, in the mean; None where none could be read.
        step_records: records in a batch, which is filled up at the job's end.
        workers: that decoded.
    """

    records: int
    failed: float
    start_seconds: float
    decoding: float
    device: float | None
    both: float
    picture_bytes: float | None
    step_records: int
    workers: int

    @property
    def bottleneck(self) -> Literal["decoding", "device"]:
        """Which of the two is slower alone."""
        return "decoding" if self.device is None or self.decoding < self.device else "device"

    @property
    def workers_needed(self) -> int:
        """Workers that would keep the device busy, each as fast as those of the trial."""
        if self.device is None:
            return max(1, self.workers)
        return max(1, math.ceil(SPARE * max(1, self.workers) * self.device / self.decoding))

    def seconds(self, records: int, processes: int = 1) -> float:
        """What so many records take, compiling left out.

        Args:
            records: that are to be done.
            processes: that share them, each as fast as this one.
        """
        mine = math.ceil(records / processes)
        copies = -round(mine * (1 - self.failed)) % self.step_records
        # The last batch is filled up, and the device computes the copies too.
        return self.start_seconds + mine / self.both + (copies / self.device if self.device else 0.0)


def run_pilot(
    source: Records,
    missing: Sequence[int],
    step: Step,
    options: JobOptions,
    seconds: float = SECONDS,
    doing: Callable[[str], None] = lambda what: None,
) -> Pilot:
    """Try a job on some of its records.

    Args:
        source: the records.
        missing: indices of those that the job has to do; one at least.
        step: of the job, compiled.
        options: of the job.
        seconds: of each measurement, about.
        doing: is told what is measured.

    Raises:
        JobError: the input or this machine is at fault, as in the job itself.
    """
    trial = _Trial(source, missing, step, options, seconds)
    doing(f"trying out decoding with {options.workers or 'no'} worker(s)")
    decoding = trial.decode()
    doing("trying out the device")
    device = trial.compute()
    doing("trying out both together")
    both = trial.score()
    return Pilot(
        trial.tried,
        trial.failed / trial.tried,
        trial.start_seconds,
        decoding,
        device,
        both,
        _mean_bytes(source, itertools.islice(spread(missing), min(WEIGHED, len(missing)))),
        step.records,
        options.workers,
    )


def spread(indices: Sequence[int]) -> Iterator[int]:
    """Indices from all over, in runs of neighbours, each once before any comes again; without end."""
    runs = math.ceil(len(indices) / CHUNK)
    stride = next(number for number in itertools.count(max(1, round(GOLDEN * runs))) if math.gcd(number, runs) == 1)
    for number in itertools.count():
        first = number * stride % runs * CHUNK
        yield from indices[first : first + CHUNK]


class _Trial:
    def __init__(self, source: Records, missing: Sequence[int], step: Step, options: JobOptions, seconds: float):
        self._source, self._missing, self._step, self._options = source, missing, step, options
        self._seconds = seconds
        self._faults = Faults(source)
        self._images: list[np.ndarray] = []
        self.tried = self.failed = 0
        self.start_seconds = 0.0

    def _decoded(self) -> Generator[Decoded, None, None]:
        workers, ahead = self._options.workers, 2 * self._step.records
        indices = spread(self._missing)
        recipe = self._step.recipe
        with contextlib.closing(decode_ahead(self._source, indices, recipe, workers=workers, ahead=ahead)) as decoded:
            yield from map(self._faults.require_none, decoded)

    def decode(self) -> float:
        """Records per second, and images for the device. The first records, while workers start, do not count."""
        begun, since = time.monotonic(), 0.0
        skipped = CHUNK * max(1, self._options.workers)
        enough = max(len(self._missing), 4 * skipped)
        count = 0
        with contextlib.closing(self._decoded()) as decoded:
            for record in decoded:
                count += 1
                self.tried, self.failed = self.tried + 1, self.failed + (record.inputs is None)
                if record.inputs is not None and len(self._images) < self._step.records:
                    self._images.append(record.inputs)
                now = time.monotonic()
                if count == 1:
                    self.start_seconds = now - begun
                if count == skipped:
                    since = now
                if count > skipped and (count - skipped >= enough or now - since > self._seconds):
                    return (count - skipped) / max(now - since, 1e-6)
        raise AssertionError("records come without end")

    def compute(self) -> float | None:
        """Records per second of the compiled step, with as many batches at once as in the job."""
        if not self._images:
            return None
        step, at_once = self._step, self._step.batches_at_once()
        found = np.concatenate(self._images)
        images = np.resize(found, (step.batch_size, *step.image_shape))
        batches = math.ceil(len(self._missing) / step.records)
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(step, [images] * at_once))  # to warm up
            begun, done = time.monotonic(), 0
            while not done or (done < batches and time.monotonic() - begun < self._seconds):
                list(threads.map(step, [images] * at_once))
                done += at_once
            return done * step.records / (time.monotonic() - begun)

    def score(self) -> float:
        """Records per second of the whole, from the end of one round of batches to the end of a later one."""
        columns, at_once = tuple(sorted(self._options.columns)), self._step.batches_at_once()
        size = self._step.records * at_once if self._images else CHUNK  # without images none reaches the device
        begun, records, counted, rounds = 0.0, 0, 0, 0
        with (
            contextlib.closing(self._decoded()) as decoded,
            contextlib.closing(score_stream(decoded, self._step, columns, DeviceClock())) as outcomes,
        ):
            for outcome in outcomes:
                bad = outcome.row is None
                self.tried, self.failed = self.tried + 1, self.failed + bad
                records, counted = records + 1, counted + (not bad or not self._images)
                if counted < size:
                    continue
                now = time.monotonic()
                if rounds == 0:  # the first round shares the processor with workers that start and work ahead
                    begun, records = now, 0
                rounds, counted = rounds + 1, 0
                if rounds > 1 and (records >= len(self._missing) or now - begun > self._seconds):
                    return records / max(now - begun, 1e-6)
        raise AssertionError("records come without end")


def _mean_bytes(source: Records, indices: Iterable[int]) -> float | None:
    """Of some records as they lie in the input."""
    sizes = []
    for index in indices:
        with contextlib.suppress(Exception):  # a record that cannot be read was counted as a failure before
            content = source.read(index)
            sizes.append(_bytes_of(content))
    known = [size for size in sizes if size is not None]
    return float(np.mean(known)) if known else None


def _bytes_of(content: np.ndarray | bytes | VideoFile) -> int | None:
    if isinstance(content, VideoFile):
        return content.size()
    return content.nbytes if isinstance(content, np.ndarray) else len(content)
