"""Which column of a table holds encoded pictures: binary, or Hugging Face's ``{bytes, path}``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jepa_jax.errors import ArgumentError, ImageError
from jepa_jax.images.sources.kind import PART
from jepa_jax.images.sources.listing import KEY_COLUMN, PATH_COLUMNS, is_text_type, locate
from jepa_jax.images.sources.records import MAX_BYTES, Unusable, read_file, text_key

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS = ("image", "img", "picture", "photo", "image_bytes", "jpg", "jpeg", "png", "webp")
"""Names of the column that is meant where several could be; a table with one such column needs none."""


def image_column(
    name: str, schema: pa.Schema, column: str | None, features: Mapping[str, Any] | None = None
) -> str | None:
    """The column of a table's pictures; None where it has none, and may list paths.

    Args:
        name: what the user called the input.
        schema: of the table.
        column: which one is meant, if that was said.
        features: Hugging Face's, by column; by default those that the schema carries.

    Raises:
        ArgumentError: there are several, or a column of paths as well, or pictures as arrays of numbers.
    """
    candidates = [column] if column is not None else _candidates(schema, features or _features(schema))
    found = [known for known in candidates if holds_pictures(schema, known)]
    shown = " and ".join(map(text_key, found[:5]))
    if column is None and found:
        named = [known for known in found if known.lower() in IMAGE_COLUMNS]
        found = named if len(named) == 1 else found
        if len(found) > 1:
            raise ArgumentError(
                f"input {name} has the columns {shown}, and each could hold the pictures; say which one: "
                f"{name}{PART}{text_key(found[0])}."
            )
        paths = [known for known in PATH_COLUMNS if known in schema.names and _is_text(schema, known)]
        if paths:
            raise ArgumentError(
                f"input {name} holds pictures in its column {text_key(found[0])!r}, and could list some by paths "
                f"in {paths[0]!r}; say which are meant: {name}{PART}{text_key(found[0])} or {name}{PART}{paths[0]}."
            )
    if found:
        if (count := schema.names.count(found[0])) != 1:
            raise ArgumentError(f"input {name} has {count} columns called {found[0]!r}; it must have one.")
        return found[0]
    wanted = [column] if column is not None else [known for known in IMAGE_COLUMNS if known in schema.names]
    if arrays := [known for known in wanted if _holds_arrays(schema, known)]:
        raise ArgumentError(
            f"input {name} holds arrays of numbers in its column {text_key(arrays[0])!r}, and no encoded pictures: "
            "save them as uint8 [N, H, W, 3] by np.save, and give the .npy file."
        )
    return None


def holds_pictures(schema: pa.Schema, column: str) -> bool:
    """Whether a column is there whose values are bytes, or ``{bytes, path}``."""
    return column in schema.names and _is_encoded(_type_of(schema, column))


def key_column(name: str, schema: pa.Schema) -> str | None:
    """The column of the keys, if there is one.

    Raises:
        ArgumentError: it is there twice, or can be no key.
    """
    import pyarrow as pa

    count = schema.names.count(KEY_COLUMN)
    if not count:
        return None
    if count > 1:
        raise ArgumentError(f"input {name} has {count} columns called {KEY_COLUMN!r}; it must have one.")
    kind = _type_of(schema, KEY_COLUMN)
    if not (is_text_type(kind) or pa.types.is_integer(kind)):
        raise ArgumentError(f"input {name}: its column {KEY_COLUMN!r} is of type {kind}; keys must be text.")
    return KEY_COLUMN


def picture_in(cell: pa.Scalar, folder: str) -> bytes:
    """A cell's encoded picture; where it has a path and no bytes, the file's, below the table's folder.

    Raises:
        ImageError: there is neither, or it is too large.
        OSError: the file cannot be read.
    """
    import pyarrow as pa

    content, path = cell, None
    if pa.types.is_struct(cell.type) and cell.is_valid:
        at: Any = cell
        content = at["bytes"]
        path = at["path"].as_py() if "path" in [field.name for field in cell.type] else None
    if content.is_valid:
        data = content.as_py()
        if isinstance(data, bytes) and len(data) <= MAX_BYTES:
            return data
        if isinstance(data, bytes):
            raise ImageError(f"the picture has {len(data)} bytes, over the limit of {MAX_BYTES}")
    if not path:
        raise ImageError("the row has no picture: neither bytes nor a path")
    place = locate(folder, path)
    if isinstance(place, Unusable):
        raise ImageError(place.reason)
    return read_file(place)


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """Hugging Face's features, as its tables carry them; empty where they do not."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _candidates(schema: pa.Schema, features: Mapping[str, Any]) -> Sequence[str]:
    """Columns that may hold pictures: those that are said to, or else all that are not said to hold sound or such."""
    kinds = {column: feature.get("_type") for column, feature in features.items() if isinstance(feature, dict)}
    if images := [column for column in schema.names if kinds.get(column) == "Image"]:
        return list(dict.fromkeys(images))
    return [column for column in dict.fromkeys(schema.names) if kinds.get(column, "Value") in ("Value", None)]


def _type_of(schema: pa.Schema, column: str) -> pa.DataType:
    import pyarrow as pa

    kind: Any = schema.field(schema.names.index(column)).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return getattr(kind, "storage_type", kind)


def _is_text(schema: pa.Schema, column: str) -> bool:
    return is_text_type(_type_of(schema, column))


def _is_encoded(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        path = fields.get("path")
        return _is_bytes(fields.get("bytes")) and (path is None or is_text_type(path) or pa.types.is_null(path))
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return kind is not None and any(test(kind) for test in tests)


def _holds_arrays(schema: pa.Schema, column: str) -> bool:
    import pyarrow as pa

    if column not in schema.names:
        return False
    kind: Any = _type_of(schema, column)
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth > 0 and (pa.types.is_integer(kind) or pa.types.is_floating(kind))
