"""Stopping after the batches in hand: by a signal, or because too many records fail."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from jepa_jax.errors import ArgumentError, JobError

SIGNALS = (signal.SIGTERM, signal.SIGINT)

TELLING = 2.0
"""Seconds in which whoever watches is told of a signal, before the job ends all the same."""


class JobInterrupted(JobError):
    """A signal stopped the job; what is whole is on disk.

    Attributes:
        exit_status: 128 + the signal's number, as a shell would say it.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.exit_status = 128 + signum


class StopSignals:
    """While entered, SIGTERM and SIGINT are remembered instead of obeyed; the second one is obeyed at once.

    Args:
        say: is told at once, in a thread of its own, that a signal has come and what is waited for.

    Attributes:
        received: the signal's number, or None.
        waiting_for: asked, once a signal has come, for what has to end before the job does, in words.
    """

    def __init__(self, say: Callable[[str], None] = lambda message: None):
        self.received: int | None = None
        self.waiting_for: Callable[[], str] = lambda: "what was begun"
        self._say = say
        self._before = {}
        # A handler runs between any two instructions: of all that threads share, this alone may be used there.
        self._told: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python handles signals there alone
            self._teller = threading.Thread(target=self._tell, name="signals", daemon=True)
            self._teller.start()
            self._before = {signum: signal.signal(signum, self._remember) for signum in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if self._before:
            self._told.put(None)
            self._teller.join(TELLING)

    def _tell(self) -> None:
        signum = self._told.get()
        if signum is not None:
            name = signal.Signals(signum).name
            self._say(f"{name} received: waiting for {self.waiting_for()}; a second signal stops at once.")

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self._told.put(signum)

    def raise_if_received(self) -> None:
        """Raise JobInterrupted if a signal has come."""
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise JobInterrupted(
                f"{name} received: the batches in hand were finished and every whole part is written. "
                "The same command resumes the job.",
                self.received,
            )


def pause(signals: StopSignals, seconds: float = 1.0) -> None:
    """Wait until something else may have happened elsewhere, or a signal comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        signals.raise_if_received()
        time.sleep(0.05)


@dataclass(frozen=True)
class FailureLimit:
    """How many records may fail before a job gives up, since something is wrong with all of it.

    Attributes:
        count: at most so many, or
        share: at most this share of the records tried so far, once `SAMPLE` are tried, and of all in the end.

    While a job runs, each process counts what it has tried itself; in the end the whole table counts.
    """

    count: int | None = None
    share: float | None = None

    SAMPLE = 100

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """``"50"`` is a count, ``"0.1"`` and ``"10%"`` are shares."""
        try:
            if text.isdecimal():
                return cls(count=int(text))
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ArgumentError(f"max_failures={text!r} must be a count such as 50, or a share such as 0.1 or 10%.")
        return cls(share=share)

    def check(self, tried: int, failed: int, last_reason: str) -> None:
        """Raise JobError if too many have failed so far."""
        if (self.share is None or tried >= self.SAMPLE) and self._exceeded(tried, failed):
            raise JobError(
                f"{failed} of the {tried} records tried have failed, and max_failures allows {self}; the last "
                f"reason: {last_reason.rstrip('.')}. Whole parts are kept: mend the input, or raise --max-failures, "
                "and give the same command."
            )

    def check_all(self, records: int, failed: int) -> None:
        """Raise JobError if too many of a whole job have failed."""
        if self._exceeded(records, failed):
            raise JobError(
                f"{failed} of all {records} records have failed, and max_failures allows {self}. Every part is "
                "written: mend the input and give the same command with --retry-failed, or raise --max-failures."
            )

    def _exceeded(self, records: int, failed: int) -> bool:
        most = self.count if self.share is None else self.share * records
        return most is not None and failed > most

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{self.share:.3g} of them"
