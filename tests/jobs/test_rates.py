"""What is left of a job, on a clock that is made up: right within 30% once a tenth is done."""

from collections.abc import Iterable

import numpy as np
import pytest

from jepa_jax.jobs.progress.rates import KEPT, Rates

Event = tuple[float, int, int]
"""When so many records were scored and so many failed."""


def worst_error(events: Iterable[Event]) -> float:
    """The largest error of the time left, relative to it, from when a tenth is done to nine tenths."""
    events = sorted(events)
    total, end = sum(scored + failed for _, scored, failed in events), events[-1][0]
    rates, errors = Rates(0.0), []
    for number, (time, scored, failed) in enumerate(events):
        rates.count(time, scored, failed)
        if 0.1 * total <= rates.done <= 0.9 * total:
            soon = min(time + 0.4, events[number + 1][0])
            for now in (time, soon):
                left = rates.seconds_left(now, total - rates.done)
                assert left is not None
                errors.append(abs(left - (end - now)) / (end - now))
    assert errors
    return max(errors)


def batches(count: int, size: int, seconds: float, start: float = 0.0, noise: float = 0.0) -> list[Event]:
    """Batches one after the other, each noisy by its own share."""
    rng = np.random.default_rng(0)
    times = start + np.cumsum(seconds * (1 + noise * rng.uniform(-1, 1, count)))
    return [(time, size, 0) for time in times]


def in_pairs(events: list[Event]) -> list[Event]:
    """Two batches at a time, the second a little later."""
    return [(events[i | 1][0] + 0.3 * (i & 1), scored, failed) for i, (_, scored, failed) in enumerate(events)]


def failing(events: list[Event], failures: Iterable[float]) -> list[Event]:
    """Records that fail at these shares of the batches; each comes at once, before the batch that it is read in."""
    return events + [(max(0.01, events[int(share * len(events))][0] - 0.01), 0, 1) for share in failures]


STEADY = batches(200, 16, 2.0, noise=0.3)

CASES = {
    "steady": STEADY,
    "few batches": batches(40, 16, 30.0),
    "pairs": in_pairs(batches(200, 16, 2.0, noise=0.2)),
    "fast": batches(5000, 4, 0.01, noise=0.5),
    "a long job": batches(20_000, 64, 5.0, noise=0.3),
    "a slow start": [(10.0 * number, 16, 0) for number in range(1, 8)] + batches(200, 16, 1.0, start=70.0),
    "workers that start late": batches(200, 16, 0.5, start=20.0),
    "a third fails": failing(STEADY, np.random.default_rng(1).uniform(0, 0.99, 1600)),
    "the first twentieth fails": failing(STEADY, np.linspace(0, 0.001, 170)),
    "all fail": [(0.02 * number, 0, 1) for number in range(1, 3000)],
    "records by themselves": [(1.0 * number, 1, 0) for number in range(1, 500)],
}


@pytest.mark.parametrize("events", CASES.values(), ids=CASES)
def test_what_is_left_is_right_within_30_percent_once_a_tenth_is_done(events: list[Event]):
    assert worst_error(events) < 0.3


def test_the_rate_of_a_minute_and_of_all():
    rates = Rates(100.0)
    assert (rates.overall, rates.last_minute, rates.seconds_left(101.0, 5)) == (0.0, 0.0, None)
    for second in range(1, 301):  # ten a second at first, then two
        rates.count(100.0 + second, 10 if second <= 200 else 2, 0)
    assert rates.done == 2200
    assert rates.overall == pytest.approx(2200 / 300)
    assert rates.last_minute == pytest.approx(2, rel=0.01)


def test_little_is_remembered_of_a_long_run():
    rates = Rates(0.0)
    for number in range(1, 20_000):
        rates.count(float(number), 1, 0)
    assert len(rates._moments) <= KEPT
    assert rates.overall == pytest.approx(1)


def test_a_stall_is_not_counted_down():
    rates = Rates(0.0)
    for number in range(1, 11):
        rates.count(10.0 * number, 16, 0)
    due = rates.seconds_left(110.0, 160)
    assert due == pytest.approx(90)
    assert rates.seconds_left(1000.0, 160) == due
