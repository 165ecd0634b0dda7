"""A list of keys: which records of an input are meant, as `jepa-jax select` writes it."""

from __future__ import annotations

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.listing import KEY_COLUMN
from jepa_jax.paths import PathLike, to_path


def read_keys(path: PathLike) -> list[str]:
    """The keys of a text file, one per line, or of the column ``key`` of a Parquet table.

    Raises:
        ArgumentError: the file cannot be read, or has no key.
    """
    import pyarrow as pa

    from jepa_jax.parquet import read_parquet

    file = to_path(path)
    try:
        if file.suffix.lower() == ".parquet":
            keys = read_parquet(file, [KEY_COLUMN])[KEY_COLUMN].cast(pa.string()).to_pylist()
        else:
            keys = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError, KeyError, pa.ArrowException) as error:
        raise ArgumentError(f"keys {path} cannot be read: {error}") from error
    keys = [key for key in keys if key]
    if not keys:
        raise ArgumentError(f"keys {path} lists no key: give one per line, or a Parquet table with a column 'key'.")
    return keys
