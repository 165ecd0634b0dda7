"""Sound files, damaged in many ways from a fixed seed: whatever comes out is a value or one sentence, soon."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np

PATIENCE = 5.0
"""Seconds that one damaged file may take."""


@dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
        name: of the format.
        make: writes a sound file, or a folder of files, into the folder it is given, and says what `use` gets.
        use: what a user would do with it.
        allowed: the errors by which it may be refused, each with one sentence.
    """

    name: str
    make: Callable[[np.random.Generator, Path], Path]
    use: Callable[[Path], object]
    allowed: tuple[type[Exception], ...]


@dataclass
class Outcome:
    """What became of the files: how many were taken as they are, and how often each kind of reason was given."""

    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class FuzzError(AssertionError):
    """A damaged file led to something else than a value or one sentence."""


def fuzz(target: Target, folder: Path, *, times: int, seed: int, first: int = 0) -> Outcome:
    """Try so many damaged files of a format; file ``n`` of a seed is always the same.

    Raises:
        FuzzError: naming the number of the file, which is left in ``folder``.
    """
    outcome = Outcome()
    for number in range(first, first + times):
        random = np.random.default_rng([seed, number])
        place = folder / f"{target.name}-{number}"
        place.mkdir(parents=True)
        path = target.make(random, place)
        _damage_one(random, [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()))
        began = time.monotonic()
        try:
            with _patience():
                target.use(path)
            outcome.taken += 1
        except target.allowed as error:
            message = str(error)
            if not message.strip() or "\n" in message or "Traceback" in message:
                raise FuzzError(f"{target.name} {number} (seed {seed}): no single sentence: {message!r}") from error
            outcome.refused[message[:60]] += 1
        except Exception as error:
            raise FuzzError(f"{target.name} {number} (seed {seed}): {type(error).__name__}: {error}") from error
        if time.monotonic() - began > PATIENCE:  # library code may not let a signal through
            raise FuzzError(f"{target.name} {number} (seed {seed}) took {time.monotonic() - began:.0f} s")
        shutil.rmtree(place)
    return outcome


def damaged(random: np.random.Generator, content: bytes) -> bytes:
    """A file's content, damaged in one way, or in several; at times it is left as it is."""
    for _ in range(random.choice([0, 1, 2, 4], p=[0.05, 0.55, 0.25, 0.15])):
        content = _WAYS[int(random.integers(len(_WAYS)))](random, bytearray(content))
    return content


def _damage_one(random: np.random.Generator, files: list[Path]) -> None:
    file = files[int(random.integers(len(files)))]
    file.write_bytes(damaged(random, file.read_bytes()))


def _somewhere(random: np.random.Generator, content: bytearray) -> int:
    """A position; headers, which lie at the front, as often as all the rest."""
    size = max(1, len(content))
    return int(random.integers(min(size, 128) if random.random() < 0.5 else size))


def _cut(random: np.random.Generator, content: bytearray) -> bytes:
    return bytes(content[: _somewhere(random, content)])


def _flip(random: np.random.Generator, content: bytearray) -> bytes:
    for _ in range(int(random.integers(1, 9))):
        if content:
            content[_somewhere(random, content)] ^= 1 << int(random.integers(8))
    return bytes(content)


def _overwrite(random: np.random.Generator, content: bytearray) -> bytes:
    """Numbers at the edge of their range, where sizes and offsets may stand."""
    at = _somewhere(random, content)
    edges = [
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\0\0\0\0",
        b"\x80\0\0\0",
        b"-1",
        b"9" * 12,
    ]
    value = edges[int(random.integers(len(edges)))]
    content[at : at + len(value)] = value
    return bytes(content)


def _noise(random: np.random.Generator, content: bytearray) -> bytes:
    at, size = _somewhere(random, content), int(random.integers(1, 65))
    content[at : at + size] = random.bytes(size)
    return bytes(content)


def _insert(random: np.random.Generator, content: bytearray) -> bytes:
    at = _somewhere(random, content)
    content[at:at] = random.bytes(int(random.integers(1, 65)))
    return bytes(content)


def _remove(random: np.random.Generator, content: bytearray) -> bytes:
    at = _somewhere(random, content)
    del content[at : at + int(random.integers(1, 257))]
    return bytes(content)


def _repeat(random: np.random.Generator, content: bytearray) -> bytes:
    at, size = _somewhere(random, content), int(random.integers(1, 257))
    return bytes(content[: at + size] + content[at:])


_WAYS = (_cut, _flip, _overwrite, _noise, _insert, _remove, _repeat)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    def too_long(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer within {PATIENCE:.0f} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
