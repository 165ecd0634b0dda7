"""The race: all contestants take turns, round after round, so that a busy machine is unfair to all alike."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contest import Contest, make_contest
from benchmarks.our_peers import our_contestant
from benchmarks.peers import Contestant, Entry, Unavailable
from benchmarks.standings import standings
from jepa_jax.costs.planning import multiplications
from jepa_jax.layers import SCHEDULES
from jepa_jax.numerics.precision import LEVELS, Precision
from jepa_jax.numerics.product_rates import jax_product, product_rates
from jepa_jax.numerics.products import Products


@dataclass
class Record:
    """What a contestant has done so far."""

    entry: Entry
    note: str = ""
    compile_seconds: float | None = None
    seconds: list[float] = field(default_factory=list)  # per image
    readings: list[dict[str, float | None]] = field(default_factory=list)
    absent: str | None = None  # why it did not take part, or stopped

    def row(self) -> dict[str, Any]:
        """As plain data, with medians."""
        row: dict[str, Any] = {
            "contestant": self.entry.name,
            **dataclasses.asdict(self.entry),
            "emulated": self.entry.emulated,
            "note": self.note,
            "compile_seconds": self.compile_seconds,
            "seconds": self.seconds,
            "readings": self.readings,
            "absent": self.absent,
        }
        if self.seconds:
            row["seconds_median"] = statistics.median(self.seconds)
            row["images_per_second"] = 1 / row["seconds_median"]
        return row


@dataclass(frozen=True)
class Race:
    """Seconds per image of every contestant on the same weights and the same image.

    Attributes:
        model: ``toy``, or the known name of a DINOv2.
        image_size: side, pixels.
        rounds: turns of everybody, after compiling and warming up.
        entries: who takes part.
        square: side of the product that gives the ceiling, measured in every round.
    """

    model: str
    image_size: int
    rounds: int
    entries: tuple[Entry, ...]
    square: int = 2048

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Race."""
        contest = make_contest(self.model, self.image_size)
        shape, outputs = contest.images.shape[1:], contest.encoder.spec.embedding_size
        cost = contest.encoder.function.cost(shape, outputs, SCHEDULES["looped"], Products())
        summary: dict[str, Any] = {
            "model": self.model,
            "image_size": self.image_size,
            "outputs": outputs,
            # In matrix products, of an image: an addition goes with each multiplication.
            "naive_flops": 2 * (cost.forward + cost.by_vjp),
            "rules_flops": 2 * multiplications(cost, outputs, outputs),
        }
        records = [Record(entry) for entry in self.entries]
        contestants: dict[str, Contestant | None] = {}
        products: dict[Precision, Callable[[], None]] = {
            precision: jax_product((self.square, self.square, self.square), precision)
            for precision in LEVELS
            if any(entry.precision == precision and not entry.emulated for entry in self.entries)
        }
        ceilings: dict[Precision, list[float]] = {precision: [] for precision in products}
        for turn in range(self.rounds):
            for precision, product in products.items():
                ceilings[precision] += product_rates(product, (self.square, self.square, self.square), 3)
            for entered in records:
                name = entered.entry.name
                if turn == 0:
                    contestants[name] = _prepared(contest, entered)
                contestant = contestants[name]
                if contestant and entered.absent is None and turn < (entered.entry.rounds or self.rounds):
                    _take_turn(contestant, entered)
                record(standings(summary | _results(records, ceilings)))
        return standings(summary | _results(records, ceilings))


def _prepared(contest: Contest, entered: Record) -> Contestant | None:
    """A contestant that has compiled and warmed up; one that cannot is marked absent."""
    print(f"  preparing {entered.entry.name}", flush=True)
    try:
        contestant = _enter(contest, entered.entry)
        entered.note = contestant.note
        entered.compile_seconds = contestant.prepare()
        return contestant
    except Unavailable as error:
        entered.absent = str(error)
    except Exception as error:  # one that fails must not cost the others their race
        entered.absent = f"{type(error).__name__}: {error}"
    print(f"  absent: {entered.absent}", flush=True)
    return None


def _enter(contest: Contest, entry: Entry) -> Contestant:
    """Make an entry ready.

    Raises:
        Unavailable: it cannot take part here.
    """
    if entry.ours:
        return our_contestant(contest, entry)
    if contest.model is None:
        raise Unavailable("PyTorch is not installed.")
    from benchmarks.torch_peers import torch_contestant

    return torch_contestant(contest, entry)


def _take_turn(contestant: Contestant, entered: Record) -> None:
    begun = time.perf_counter()
    try:
        found = contestant.run()
        seconds = (time.perf_counter() - begun) / entered.entry.batch
        entered.readings.append(dataclasses.asdict(contestant.read(found)))
    except Exception as error:  # as above
        entered.absent = f"{type(error).__name__}: {error}"
        print(f"  {entered.entry.name} failed: {entered.absent}", flush=True)
        return
    entered.seconds.append(seconds)
    print(f"  {entered.entry.name}: {seconds:.3f} s per image", flush=True)


def _results(records: list[Record], ceilings: dict[Precision, list[float]]) -> dict[str, Any]:
    return {
        "ceilings": {
            precision: {
                "flops_per_second_median": statistics.median(rates),
                "flops_per_second_min": min(rates),
                "flops_per_second_max": max(rates),
            }
            for precision, rates in ceilings.items()
            if rates
        },
        "contestants": [entered.row() for entered in records],
    }
