"""Charts as data for the template: paths in a 1000 x 1000 square that the page stretches, labels as text beside it.

Text stays text, so that it is readable at any width, and colours are classes, so that they follow the theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

MINUS = "\N{MINUS SIGN}"

SIDE = 1000
"""Units of the square."""


@dataclass(frozen=True)
class Tick:
    """A label at a share of the axis, per cent."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis.

    Attributes:
        label: what it shows, with its unit.
        low, high: its ends, in data units.
        log: whether it is logarithmic.
        share: whether values are shares, written as per cent.
    """

    label: str
    low: float
    high: float
    log: bool = False
    share: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Data units to 0..1 along the axis, clipped to it."""
        low, high = self.low, self.high
        if self.log:
            low, high = math.log10(low), math.log10(high)
            values = np.log10(np.maximum(values, np.finfo(np.float64).tiny))
        return np.clip((np.asarray(values, np.float64) - low) / (high - low), 0, 1)

    @property
    def ticks(self) -> list[Tick]:
        """About five round values."""
        if self.log:
            return self._decades()
        values = round_values(self.low, self.high)
        step = values[1] - values[0] if len(values) > 1 else 1.0
        if self.share:
            texts = [f"{100 * value:.{_decimals(100 * step)}f}%" for value in values]
        else:
            texts = [number(value, _decimals(step)) for value in values]
        return [Tick(round(100 * float(self.place(np.array(v))), 2), t) for v, t in zip(values, texts, strict=True)]

    def _decades(self) -> list[Tick]:
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        if last - first < 1:  # under two decades: round values in between say more
            values = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
            values = [value for value in values if self.low <= value <= self.high]
            return [Tick(round(100 * float(self.place(np.array(v))), 2), f"{v:g}") for v in values]
        step = math.ceil((last - first + 1) / 6)
        return [
            Tick(round(100 * float(self.place(np.array(10.0**e))), 2), f"10{superscript(e)}")
            for e in range(first, last + 1, step)
        ]


@dataclass(frozen=True)
class Mark:
    """One path: ``kind`` is area, line, dots or rule; ``tone`` a class of the style sheet."""

    kind: str
    tone: str
    path: str


@dataclass(frozen=True)
class Key:
    """A line of the legend."""

    kind: str
    tone: str
    text: str


@dataclass(frozen=True)
class Spot:
    """What a pointer shows at a share of the x axis, per cent."""

    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """What a pointer shows near a dot, at shares of both axes from the lower left, per cent."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart with its words: a summary for who cannot see it, a caption, the numbers as a table."""

    name: str
    title: str
    summary: str
    caption: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    legend: tuple[Key, ...] = ()
    spots: tuple[Spot, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = field(default=())
    points: tuple[Point, ...] = ()


def line(x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray) -> str:
    """A polyline through points."""
    return "M" + "L".join(_points(x, y, xs, ys))


def band(x: Axis, y: Axis, xs: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """The area between two curves."""
    return "M" + "L".join([*_points(x, y, xs, high), *_points(x, y, xs[::-1], low[::-1])]) + "Z"


def steps(x: Axis, y: Axis, edges: np.ndarray, heights: np.ndarray, *, closed: bool) -> str:
    """A histogram's outline; closed down to the axis for an area."""
    xs, ys = np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(heights, 2), [0.0]])
    return line(x, y, xs, ys) + ("Z" if closed else "")


def dots(x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray) -> str:
    """Lines of no length: round caps of a fixed width make them dots in a stretched square."""
    return "".join(f"M{point}h0" for point in _points(x, y, xs, ys))


def points(x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray, texts: Sequence[str]) -> tuple[Point, ...]:
    """A text for each dot of `dots`, from left to right."""
    shares = zip(x.place(xs), y.place(ys), texts, strict=True)
    return tuple(sorted((Point(round(100 * a, 1), round(100 * b, 1), t) for a, b, t in shares), key=lambda p: p.x))


def rule(x: Axis, value: float) -> str:
    """An upright line."""
    return f"M{_unit(float(x.place(np.array(value))))} 0V{SIDE}"


def _points(x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray) -> list[str]:
    return [f"{_unit(a)} {_unit(1 - b)}" for a, b in zip(x.place(xs), y.place(ys), strict=True)]


def _unit(share: float) -> str:
    return f"{SIDE * share:.1f}".removesuffix(".0")


def round_values(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two values: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float, decimals: int = 1) -> str:
    """A number for people: thousands apart, a true minus sign."""
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS).replace(",", "\N{NARROW NO-BREAK SPACE}")


def superscript(exponent: int) -> str:
    """An exponent in superscript digits."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def spread(values: Sequence[np.ndarray], margin: float = 0.02) -> tuple[float, float]:
    """Ends of an axis that holds all values, with a little air; a single value gets one unit of it."""
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    air = (high - low) * margin or 1.0
    return low - air, high + air


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))
