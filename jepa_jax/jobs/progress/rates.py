"""How fast a job is and how long it still takes, from when its records were done.

Records come a batch at a time, some of the batches in pairs, and those that fail come at once. So what is left is
judged by a line through the latest of them, by least squares: those of the most recent half of the scored ones.
Workers that took long to start, and a run of broken images at the beginning, are behind it soon.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

TOGETHER = 0.05
"""Seconds within which records count as done at the same moment."""

KEPT = 512
"""Moments that are remembered of a whole run, at most: of older ones every other is let go."""

LEAST = 4
"""Moments that a line needs, if there are as many."""

MINUTE = 60.0


@dataclass(frozen=True)
class Moment:
    """How many records were done, and how many of those have scores, at a time."""

    time: float
    done: int
    scored: int


class Rates:
    """Of one run. Threads may ask while another one counts.

    Args:
        now: when the first record was begun, on a clock that goes forward alone; seconds.
    """

    def __init__(self, now: float):
        self._moments = [Moment(now, 0, 0)]
        self._latest: deque[Moment] = deque([self._moments[0]])
        self._lock = threading.Lock()

    def count(self, now: float, scored: int, failed: int) -> None:
        """So many records more are done."""
        with self._lock:
            last = self._latest[-1]
            moment = Moment(now, last.done + scored + failed, last.scored + scored)
            for moments in (self._moments, self._latest):
                if len(moments) > 1 and now - moments[-1].time < TOGETHER:
                    # The time stays, or a stream of records without a gap would be one moment.
                    moments[-1] = Moment(moments[-1].time, moment.done, moment.scored)
                else:
                    moments.append(moment)
            while len(self._latest) > 2 and now - self._latest[1].time > MINUTE:
                self._latest.popleft()
            if len(self._moments) > KEPT:
                half = KEPT // 2
                self._moments[1:half] = self._moments[1:half:2]

    @property
    def done(self) -> int:
        """Records that are done."""
        return self._latest[-1].done

    @property
    def overall(self) -> float:
        """Records per second of the run; 0 before the first."""
        with self._lock:
            return _between(self._moments[0], self._latest[-1])

    @property
    def last_minute(self) -> float:
        """Records per second of about the last minute; 0 before the first."""
        with self._lock:
            return _between(self._latest[0], self._latest[-1])

    def seconds_left(self, now: float, remaining: int) -> float | None:
        """What so many more records take; None before the first ones are done."""
        with self._lock:
            moments, last = self._moments, self._latest[-1]
            if not last.done:
                return None
            speed = _slope(moments) or _between(moments[0], last)
            if not speed:
                return None
            # What has passed since counts, but no more than the next records are due in: then they are late.
            passed = min(now - last.time, last.time - moments[-2].time)
            return max(0.0, remaining / speed - max(0.0, passed))


def _between(first: Moment, last: Moment) -> float:
    return (last.done - first.done) / (last.time - first.time) if last.time > first.time else 0.0


def _slope(moments: list[Moment]) -> float:
    """Records per second of the most recent half; 0 where that is no more than one burst."""
    half = moments[-1].scored / 2
    first = next(place for place, moment in enumerate(moments) if moment.scored >= half)
    recent = moments[max(1, min(first, len(moments) - LEAST)) :]
    times = np.array([moment.time for moment in recent])
    done = np.array([moment.done for moment in recent], float)
    times -= times.mean()
    spread = float(times @ times)
    whole = moments[-1].time - moments[0].time
    if len(recent) < 2 or np.ptp(times) < whole / (4 * len(moments)):
        return 0.0
    return float(times @ (done - done.mean())) / spread
