"""Several inputs as one: their records one after the other, each with its input's name before its key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.names import text_key
from jepa_jax.images.sources.places import Chained
from jepa_jax.images.sources.records import Reader, Records, Unusable, file_of
from jepa_jax.images.videos import VideoFile

AND = " + "
"""Stands between the names of several inputs, each of them in full."""


@dataclass(frozen=True)
class JoinedReader:
    """From (number of the input, its own locator) to a record's content; picklable."""

    readers: tuple[Reader, ...]

    def __call__(self, locator: tuple[int, Any]) -> bytes | np.ndarray | VideoFile:
        """As the input's own reader."""
        which, within = locator
        return self.readers[which](within)


class _Locators(Chained):
    """All inputs' locators."""

    def item(self, which: int, within: int) -> Any:
        """An input's own locator, behind the input's number."""
        locator = self.parts[which][within]
        return locator if isinstance(locator, Unusable) else (which, locator)


@dataclass(frozen=True)
class _Places:
    """From a locator to where its picture is, and to its file, as its own input has them."""

    parts: tuple[Records, ...]

    def __call__(self, locator: tuple[int, Any]) -> str | None:
        which, within = locator
        part = self.parts[which]
        return part.places(within) if part.places else self.file(locator)

    def file(self, locator: tuple[int, Any]) -> str | None:
        which, within = locator
        return file_of(self.parts[which], within)


def require_apart(names: Sequence[str]) -> None:
    """Raise ArgumentError where an input is given twice, or its name cannot stand among others."""
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ArgumentError(f"input {text_key(twice)} is given twice; give each input once.")
    if unclear := next((name for name in names if AND in name), None):
        raise ArgumentError(
            f"input {text_key(unclear)} has {AND!r} in its name, which stands between inputs: rename it, or score it "
            "by itself."
        )


def joined(names: Sequence[str], parts: Sequence[Records]) -> Records:
    """The records of several inputs.

    Args:
        names: of the inputs, in full; see `require_apart`.
        parts: their records.

    Raises:
        ArgumentError: their records' keys cannot be told apart, or some are videos and others pictures.
    """
    if len({part.videos for part in parts}) > 1:
        of_each = {part.videos: text_key(name) for name, part in zip(names, parts, strict=True)}
        raise ArgumentError(
            f"input {of_each[True]} holds videos, and input {of_each[False]} images; score them one by one."
        )
    labels = _labels(names)
    keys = [key for label, part in zip(labels, parts, strict=True) for key in _below(label, part.keys)]
    if len(set(keys)) < len(keys):
        raise ArgumentError(f"inputs {' and '.join(labels)} give records the same keys; score them one by one.")
    places = _Places(tuple(parts))
    return Records(
        name=AND.join(names),
        keys=keys,
        locators=_Locators([part.locators for part in parts], list(accumulate(len(part.keys) for part in parts))),
        reader=JoinedReader(tuple(part.reader for part in parts)),
        files=tuple(file for part in parts for file in part.files),
        left_out=sum(part.left_out for part in parts),
        positional=any(part.positional for part in parts),
        places=places,
        file_of=places.file,
        videos=parts[0].videos,
    )


def _below(label: str, keys: Sequence[str]) -> Sequence[str]:
    """Keys with a label before them, where it says more than they do themselves."""
    if len(keys) == 1 and f"/{label}".endswith(f"/{keys[0]}"):  # one image
        return [label]
    before = f"{label}/"
    return keys if all(key.startswith(before) for key in keys) else [before + key for key in keys]


def separate(name: str) -> list[str]:
    """The inputs that a name joins; the name itself where it is one input's."""
    names = name.split(AND)
    return names if all(map(_is_in_full, names)) else [name]


def _is_in_full(name: str) -> bool:
    return name.startswith(("/", "tfds:")) or "://" in name


def _labels(names: Sequence[str]) -> list[str]:
    """The ends of the names, with as many folders as tell them apart."""
    parts = [PurePosixPath(name).parts for name in names]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(names) and depth < max(map(len, parts)):
        depth += 1
    return [text_key("/".join(part[-depth:])) for part in parts]
