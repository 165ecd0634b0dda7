"""Stopping after the batches in hand, by a signal."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from jepa_jax.errors import JobError

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
