"""What a job scores: one file per kind of input, each turned into `Records`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence

from etils import epath

from jepa_jax.errors import ArgumentError
from jepa_jax.jobs.sources.array_record import open_array_record
from jepa_jax.jobs.sources.arrays import open_arrays
from jepa_jax.jobs.sources.folder import is_image, open_folder
from jepa_jax.jobs.sources.listing import open_listing
from jepa_jax.jobs.sources.records import Records
from jepa_jax.jobs.sources.tfds import PREFIX, open_tfds
from jepa_jax.jobs.sources.webdataset import open_webdataset

KINDS = (
    "a folder of images, .tar (WebDataset), .array_record, tfds:NAME/SPLIT, tfds:DIR/SPLIT, "
    "a .parquet or .csv list of paths, or .npy/.npz arrays"
)


def open_source(path: epath.PathLike) -> Records:
    """Find the records of an input, by what it is.

    Several archives are given as a pattern, ``shard-*.tar`` or ``shard-{000..127}.tar``, or as a folder that
    holds no image but archives.

    Raises:
        ArgumentError: it is nothing that can be scored, or holds no record.
    """
    name = os.fspath(path)
    if name.startswith(PREFIX):
        return open_tfds(name)
    source = epath.Path(path)
    if source.is_dir():
        return _open_directory(name, source)
    if source.is_file():
        return _open_files(name, [name])
    files = expand(name)
    if files != [name]:
        return _open_files(name, files)
    raise ArgumentError(f"input {name} does not exist; give {KINDS}.")


def _open_directory(name: str, directory: epath.Path) -> Records:
    if (directory / "dataset_info.json").exists():
        raise ArgumentError(f"input {name} is a TFDS directory; give the split as well: tfds:{name}/SPLIT.")
    entries = sorted(entry.name for entry in directory.iterdir())
    archives = [entry for entry in entries if _is_tar(entry) or _is_array_record(entry)]
    if archives and not any(is_image(entry) for entry in entries):
        return _open_files(name, [os.path.join(name, entry) for entry in archives])
    return open_folder(directory)


def _open_files(name: str, files: Sequence[str]) -> Records:
    missing = [file for file in files if not epath.Path(file).is_file()]
    if missing:
        raise ArgumentError(f"input {name} names {len(missing)} files that do not exist, such as {missing[0]}.")
    if all(map(_is_tar, files)):
        return open_webdataset(name, files)
    if all(map(_is_array_record, files)):
        return open_array_record(name, files)
    suffix = epath.Path(files[0]).suffix.lower()
    if len(files) == 1 and suffix in (".parquet", ".csv"):
        return open_listing(name)
    if len(files) == 1 and suffix in (".npy", ".npz"):
        return open_arrays(name)
    hint = " Decompress it first." if name.endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")) else ""
    raise ArgumentError(f"input {name} is of no known kind; give {KINDS}.{hint}")


def _is_tar(name: str) -> bool:
    return name.endswith(".tar")


def _is_array_record(name: str) -> bool:
    return bool(re.search(r"\.(array_record|arrayrecord)(-\d+-of-\d+)?$", name))


def expand(pattern: str) -> list[str]:
    """The files of a pattern: ``{000..127}`` counts, keeping leading zeros; ``*``, ``?`` and ``[...]`` match."""
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if found:
        head, first, last, tail = found.groups()
        return [f"{head}{number:0{len(first)}d}{tail}" for number in range(int(first), int(last) + 1)]
    if not glob.has_magic(pattern):
        return [pattern]
    parent, _, name = pattern.rpartition("/")
    files = sorted(os.fspath(file) for file in epath.Path(parent or ".").glob(name))
    if not files:
        raise ArgumentError(f"input {pattern} matches no file.")
    return files
