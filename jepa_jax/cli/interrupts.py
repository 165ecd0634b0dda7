"""Ctrl-C, also where Python would lose it."""

from __future__ import annotations

import _thread
import sys
import time
from types import TracebackType
from typing import Protocol

AGAIN_AFTER = 0.1
"""Seconds after which an interrupt that was lost comes again."""


class _Dropped(Protocol):
    exc_type: type[BaseException]
    exc_value: BaseException | None
    exc_traceback: TracebackType | None
    err_msg: str | None
    object: object


def heed_interrupts() -> None:
    """From now on, an interrupt that Python drops comes again.

    What a callback of the garbage collector raises is dropped with a traceback, KeyboardInterrupt too, and JAX has
    such a callback: the command would go on as if nobody had pressed Ctrl-C.
    """
    others = sys.unraisablehook

    def heed(dropped: _Dropped) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            _thread.start_new_thread(_interrupt_soon, ())  # `threading` has locks, which may be held at this moment
        else:
            others(dropped)

    sys.unraisablehook = heed


def _interrupt_soon() -> None:
    time.sleep(AGAIN_AFTER)
    _thread.interrupt_main()
