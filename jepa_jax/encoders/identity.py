"""What makes an encoder the one it is, in plain data: how specs are stored, hashed, compared and read back.

A spec has two plain forms, both of nested dicts and lists:

- **Stored** (`stored_form`): the fields that differ from their defaults, and those that have none. This is what a
  checkpoint holds since format 2. Whoever reads it fills in the defaults.
- **Pinned** (`pinned_form`): the fields of `FORMAT_1` always, later ones only where they differ from their defaults.
  This is what digests hash and manifests hold.

Either way a new field with a default changes nothing that was written before it existed. Format 1 wrote every field
that there was, and hashed that: were the stored form hashed, every digest in checkpoints, manifests and results would
be another one today. The pinned form of a spec without later fields is what format 1 hashed, byte by byte.

Hence two rules. A published default never changes: a spec that left it out would mean something else (a checkpoint's
digest would tell). And ``FORMAT_1`` never grows: a new field stays out of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np

from jepa_jax.errors import ArgumentError, CheckpointError

FORMAT_VERSION = 2
"""Of what `stored_form` returns."""

FORMAT_1: Mapping[str, tuple[str, ...]] = {
    "EncoderSpec": (
        "name",
        "family",
        "vit",
        "preprocess",
        "hub_id",
        "licence",
        "gaussian_embedding",
        "kernel_dtype",
    ),
    "ViTSpec": (
        "width",
        "depth",
        "heads",
        "patch_size",
        "native_image_size",
        "mlp_width",
        "activation",
        "norm_eps",
        "register_tokens",
        "class_token",
        "layer_scale",
        "qkv_bias",
        "patch_bias",
        "pre_norm",
        "pooling",
        "projection",
        "l2_normalize",
        "position_resize",
    ),
    "PreprocessSpec": ("resize_shortest", "crop", "interpolation", "mean", "std", "squeeze"),
    "ViewRecipe": ("scale", "flip", "jitter", "brightness", "contrast", "saturation", "hue", "grey"),
}
"""Fields of format 1 by class: in a pinned form they stand in full, whatever their values. A closed list.

The first three make a checkpoint; a manifest pins a ``ViewRecipe`` too.
"""

LABELS = ("name", "family", "hub_id", "licence")
"""Fields of an encoder that decide no score: they are not hashed."""


def stored_form(spec: Any) -> dict[str, Any]:
    """The fields of a spec that are not their defaults, as plain data for JSON; `from_plain` is its inverse."""
    return _to_plain(spec, {})


def pinned_form(spec: Any) -> dict[str, Any]:
    """The fields of format 1, and later ones that are not their defaults, as plain data for JSON.

    Equal specs have equal pinned forms, whichever version of this package wrote them down.
    """
    return _to_plain(spec, FORMAT_1)


def digest(spec: Any, arrays: Iterable[tuple[str, Any]]) -> str:
    """SHA-256 over all that decides a score: architecture, recipe and every parameter. `LABELS` do not count.

    Args:
        spec: an ``EncoderSpec``; its pinned form is hashed.
        arrays: the parameters by name, in any order.
    """
    deciding = {name: value for name, value in pinned_form(spec).items() if name not in LABELS}
    state = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode())
    for name, array in sorted(arrays):
        value = np.ascontiguousarray(array)
        state.update(f"{name} {value.dtype} {value.shape}".encode())
        state.update(value.view(np.uint8).data if value.size else b"")
    return state.hexdigest()


def _whole_format_1(data: Any) -> Any:
    """Format 1 to 2: nothing changes, but format 1 wrote every field, so that one which is not there was lost."""
    if not isinstance(data, dict):
        return data
    parts = {
        "encoder": ("EncoderSpec", data),
        "encoder.vit": ("ViTSpec", data.get("vit")),
        "encoder.preprocess": ("PreprocessSpec", data.get("preprocess")),
    }
    for where, (name, fields) in parts.items():
        if isinstance(fields, dict) and (lost := sorted(set(FORMAT_1[name]) - fields.keys())):
            raise CheckpointError(f"{where}: missing fields {lost}")
    return data


MIGRATIONS: Mapping[int, Callable[[Any], Any]] = {1: _whole_format_1}
"""From each older format of an ``EncoderSpec`` to the next one."""


def migrated(data: Any, version: int) -> Any:
    """A stored ``EncoderSpec`` of any format in today's.

    Raises:
        CheckpointError: it is not what that format wrote.
    """
    for older in range(version, FORMAT_VERSION):
        data = MIGRATIONS[older](data)
    return data


def from_plain(cls: type, data: Any, where: str) -> Any:
    """A dataclass from its plain form; fields that are not there have their defaults.

    Args:
        cls: the dataclass.
        data: either form of it, as it is or from JSON.
        where: what errors call it.

    Raises:
        CheckpointError: a field is unknown, of another type, or has no default and is missing. The message names it
            and has no remedy: that is the caller's.
    """
    if not isinstance(data, dict):
        raise CheckpointError(f"{where}: expected an object, found {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    missing = sorted(name for name, field in fields.items() if name not in data and not _has_default(field))
    unknown = sorted(data.keys() - fields.keys())
    faults = [f"{kind} fields {names}" for kind, names in (("missing", missing), ("unknown", unknown)) if names]
    if faults:
        raise CheckpointError(f"{where}: {', '.join(faults)}")
    values = {name: _value_from_plain(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    try:
        return cls(**values)
    except ArgumentError as error:
        raise CheckpointError(f"{where}: {str(error).removesuffix('.')}") from error


def _to_plain(value: Any, always: Mapping[str, tuple[str, ...]]) -> Any:
    """Plain data: of a dataclass the fields that are not their defaults, and those that ``always`` names."""
    if isinstance(value, list | tuple):
        return [_to_plain(item, always) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    kept = always.get(type(value).__name__, ())
    return {
        field.name: _to_plain(getattr(value, field.name), always)
        for field in dataclasses.fields(value)
        if field.name in kept or not is_default(field, getattr(value, field.name))
    }


def is_default(field: dataclasses.Field, value: Any) -> bool:
    """Whether a field of a dataclass has a default, and this is it."""
    if field.default_factory is not dataclasses.MISSING:
        return value == field.default_factory()
    return _has_default(field) and value == field.default


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _value_from_plain(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        hints = typing.get_args(hint)
        if not isinstance(value, list | tuple) or len(value) != len(hints):
            raise CheckpointError(f"{where}: {value!r} is not a list of {len(hints)} values")
        return tuple(_value_from_plain(h, v, where) for h, v in zip(hints, value, strict=True))
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise CheckpointError(f"{where}: {value!r} is none of {typing.get_args(hint)}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in typing.get_args(hint):
            return None
        hints = [arm for arm in typing.get_args(hint) if arm is not types.NoneType]
        if len(hints) != 1:
            raise TypeError(f"{where}: only X | None is a union that plain data can tell, not {hint}.")
        return _value_from_plain(hints[0], value, where)
    # A whole number stays one where a float is due: digests tell 0 from 0.0, and hashed what was given.
    accepted = (int, float) if hint is float else (hint,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise CheckpointError(f"{where}: {value!r} is not of type {hint}")
    return value
