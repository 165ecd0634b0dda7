"""What is shown of a job while it runs: two live lines on a terminal, a line now and then in a log or a notebook."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jepa_jax.jobs.progress.protocol import ShardReport
from jepa_jax.jobs.progress.rates import Rates

SILENCE = 30.0
"""Seconds after which a log is told how things stand, whatever has happened."""

PACE = 5.0
"""Seconds between one line of a log and the next, at least."""

BAR = 30
"""Characters of the bar."""


class Quiet:
    """Shows nothing: for every process but the first."""

    def start(self, total: int, done: int) -> None:
        """See `jobs.Progress`."""

    def doing(self, what: str) -> None:
        """See `jobs.Progress`."""

    def advance(self, scored: int, failed: int, device_busy: float) -> None:
        """See `jobs.Progress`."""

    def elsewhere(self, records: int) -> None:
        """See `jobs.Progress`."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def shard_written(self, report: ShardReport) -> None:
        """See `jobs.Progress`."""


class ConsoleProgress:
    """How a job stands: rates of the last minute and of all, time left, failures, the device's share of the time.

    On a terminal two lines are kept up to date. Elsewhere, in logs and notebooks, a line is printed once a part is
    finished, `PACE` apart at least, and after `SILENCE` in any case.

    Args:
        console: where to.
        clock: gives the time in seconds; it goes forward alone.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self.console, self._clock = console, clock
        self._what, self._since = "beginning", clock()
        self._rates: Rates | None = None
        self._total = self._before = self._failed = 0
        self._busy = 0.0
        self._spoke, self._news = clock(), False
        self._ended = threading.Event()
        live = console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter
        self._live = Live(console=console, get_renderable=self._lines, refresh_per_second=4) if live else None

    def __enter__(self) -> ConsoleProgress:
        if self._live:
            self._live.start()
        else:
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._live:
            self._live.stop()
        else:
            self._ticker.join()
            if self._news:
                self._say(self.line())

    def start(self, total: int, done: int) -> None:
        """See `jobs.Progress`."""
        self._total, self._before, self._rates = total, done, None  # a job of several stages starts once for each
        if done:
            self.note(f"Resuming: {done:,} of {total:,} records were done before.")

    def doing(self, what: str) -> None:
        """See `jobs.Progress`."""
        self._what, self._since = what, self._clock()
        if not self._live:
            self._say(f"{what[:1].upper()}{what[1:]} ...")

    def advance(self, scored: int, failed: int, device_busy: float) -> None:
        """See `jobs.Progress`."""
        if self._rates is None:
            self._rates = Rates(self._since)
        self._what = ""
        self._failed, self._busy = self._failed + failed, device_busy
        self._rates.count(self._clock(), scored, failed)

    def elsewhere(self, records: int) -> None:
        """See `jobs.Progress`."""
        if self._rates is not None:
            self._rates.count(self._clock(), records, 0)

    def note(self, message: str) -> None:
        """Print it, above what is live."""
        self._say(message)

    def shard_written(self, report: ShardReport) -> None:
        """See `jobs.Progress`."""
        self._news = True

    def line(self) -> str:
        """How things stand, in one line."""
        if self._what or self._rates is None:
            return f"{self._what}: {self._clock() - self._since:.0f} s"
        return f"{self._counts()}: {self._facts()}"

    def due(self) -> bool:
        """Whether a log should be told how things stand."""
        silent = self._clock() - self._spoke
        return silent >= SILENCE or (self._news and silent >= PACE)

    def _counts(self) -> str:
        done = self._before + (self._rates.done if self._rates else 0)
        return f"{done:,}/{self._total:,} ({done / max(1, self._total):.0%})"

    def _facts(self) -> str:
        rates = self._rates
        if rates is None:
            return ""
        left = rates.seconds_left(self._clock(), self._total - self._before - rates.done)
        parts = [f"{_rate(rates.last_minute)} ({_rate(rates.overall)} in all)"] if rates.overall else []
        parts += [f"{duration(left)} left"] if left is not None else []
        parts += [f"{self._failed:,} failed"] if self._failed else []
        return ", ".join([*parts, f"device busy {self._busy:.0%}"])

    def _lines(self) -> Group:
        """Two lines, which fit any terminal; one where no records are counted."""
        width = self.console.width
        row = Table.grid(padding=(0, 1))
        done = self._before + (self._rates.done if self._rates else 0)
        bar = ProgressBar(max(1, self._total), done, width=max(4, min(BAR, width - 40)))
        row.add_row("scoring", bar, Text(self._counts(), no_wrap=True))
        facts = self.line() if self._what else self._facts()
        words = Text(f"  {facts}", no_wrap=True, overflow="ellipsis", style="progress.data.speed")
        return Group(row, words) if self._total else Group(words)

    def _say(self, message: str) -> None:
        self._spoke, self._news = self._clock(), False
        self.console.print(message, soft_wrap=True, markup=False, highlight=False)

    def _tick(self) -> None:
        while not self._ended.wait(0.5):
            if self.due():
                self._say(self.line())


def _rate(per_second: float) -> str:
    """Images per second, or seconds per image where that reads better."""
    if per_second >= 1 or not per_second:
        return f"{per_second:.3g} img/s" if per_second < 1000 else f"{per_second:,.0f} img/s"
    return f"{1 / per_second:.3g} s/img"


def duration(seconds: float) -> str:
    """``34 s``, ``12 min``, ``5 h 03 min``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
