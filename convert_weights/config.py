"""JSON descriptions, read strictly: what is wrong is named, in one sentence, before anything is built from it."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa_jax.encoders.specs import MIN_EPS
from jepa_jax.errors import CheckpointError

MAX_BYTES = 2**24
"""A description or an index that is larger is none: published ones have kilobytes."""

MAX_INTEGER = 2**20
"""No width, depth or size of an encoder comes near it; what the weights hold bounds the numbers further."""

Triple = tuple[float, float, float]

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxlong = 40
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """A value as errors show it: its ``repr``, cut short, however long or deep it is."""
    return _SHORT.repr(value)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: it is too large, no UTF-8, no JSON, nested too deep, no object, or has a key twice.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} is no file.")
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_BYTES // 2**20} MiB: it is no description of weights.")
        data = json.loads(path.read_bytes().decode(), object_pairs_hook=_each_key_once)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") if isinstance(error, _TwiceError) else error from None
    except RecursionError as error:
        raise CheckpointError(f"{path} is not readable JSON (nested too deep); download it again.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); download it again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no JSON object; download it again.")
    return data


class _TwiceError(CheckpointError):
    """A key stands twice in one object."""


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"the key {shown(twice)} stands there twice; keep the one that is meant.")
    return data


class Config:
    """A JSON object whose fields are read by name, type and range."""

    def __init__(self, path: Path, data: dict[str, Any], within: str = ""):
        self.path = path
        self._data = data
        self._within = within

    @classmethod
    def read(cls, path: Path) -> Config:
        """The configuration in a file."""
        return cls(path, read_json(path))

    def section(self, name: str) -> Config:
        """A nested object as a configuration of its own; where it is absent, an empty one."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Config(self.path, value, f"{self._within}{name}.")

    def fields(self) -> Mapping[str, Any]:
        """All fields that are not null."""
        return {name: value for name, value in self._data.items() if value is not None}

    def replacing_nulls(self, values: Mapping[str, Any]) -> Config:
        """The same configuration with these values where it says null itself."""
        told = {name: value for name, value in values.items() if name in self._data and self._data[name] is None}
        return Config(self.path, self._data | told, self._within)

    def refuse_nulls(self, *names: str) -> None:
        """Refuse fields that say null where that is no absent field."""
        for name in names:
            if name in self._data and self._data[name] is None:
                raise CheckpointError(f"{self.path}: {self._within}{name} is None; give a value, or leave it out.")

    def has(self, name: str) -> bool:
        """Whether a field is there, if only to say null."""
        return name in self._data

    def __contains__(self, name: str) -> bool:
        return self._data.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """A field as it is; an explicit null counts as absent."""
        value = self._data.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None, *, least: int = 1, most: int = MAX_INTEGER) -> int:
        """A field that must be a whole number within bounds."""
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(name, "a whole number", default)
        if not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least} to {most}", default)
        return value

    def number(self, name: str, default: float | None = None, *, least: float, most: float) -> float:
        """A field that must be a finite number within bounds."""
        value = self.get(name, default)
        if not _is_number(value) or not least <= value <= most:
            raise self.wrong(name, f"a number from {least:g} to {most:g}", default)
        return float(value)

    def epsilon(self, name: str, default: float) -> float:
        """A field that must be the epsilon of a LayerNorm, which float32 can tell from 0."""
        return self.number(name, default, least=MIN_EPS, most=1.0)

    def triple(self, name: str, default: Triple) -> Triple:
        """A field that must be three finite numbers, a channel each, or one for all."""
        value = self.get(name, list(default))
        values = value if isinstance(value, list) else [value] * 3
        if len(values) != 3 or not all(map(_is_number, values)):
            raise self.wrong(name, "three numbers", default)
        return float(values[0]), float(values[1]), float(values[2])

    def flag(self, name: str, default: bool) -> bool:
        """A field that must be true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", default)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A field that must be a string."""
        value = self.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a string", default)
        return value

    def require(self, name: str, expected: Any, default: Any = None) -> None:
        """Refuse a variant that this converter does not know, instead of ignoring the field."""
        value = self.get(name, default)
        if value != expected or isinstance(value, bool) != isinstance(expected, bool):
            raise CheckpointError(
                f"{self.path}: {self._within}{name} is {shown(value)}; only {expected!r} is supported."
            )

    def wrong(self, name: str, expected: str, default: Any = None) -> CheckpointError:
        """The error that a field is not what was expected."""
        return CheckpointError(
            f"{self.path}: {self._within}{name} is {shown(self.get(name, default))}, expected {expected}."
        )

    def unknown(self, name: str) -> CheckpointError:
        """The error that nothing is known of a field, so that it cannot be ignored."""
        return CheckpointError(
            f"{self.path}: {self._within}{name} is {shown(self.get(name))}, a field that is not known here; remove it "
            "if it changes nothing."
        )


def _is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number; JSON as Python reads it has NaN and Infinity as well."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)
