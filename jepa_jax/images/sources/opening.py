"""From what a user names to its records: of which kind an input is, and whether it can be read in one way only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.array_record import ARRAY_RECORD
from jepa_jax.images.sources.arrays import ARRAYS, holds_pictures
from jepa_jax.images.sources.folder import FOLDER, IMAGES, Contents, is_image, look_through, records_of
from jepa_jax.images.sources.joined import AND, joined, require_apart, separate
from jepa_jax.images.sources.kind import PART, SourceKind
from jepa_jax.images.sources.listing import LISTING, is_table, lists_others
from jepa_jax.images.sources.patterns import expand
from jepa_jax.images.sources.picture_tables import PICTURE_TABLES, is_parquet, is_picture_table, without_lists
from jepa_jax.images.sources.records import Records, Unusable, full_path, text_key, unique_records
from jepa_jax.images.sources.remote import HERE, local_path, require_readable, scheme_of
from jepa_jax.images.sources.saved_datasets import SAVED_DATASET
from jepa_jax.images.sources.tfds import TFDS
from jepa_jax.images.sources.videos import VIDEOS, is_video
from jepa_jax.images.sources.webdataset import WEBDATASET
from jepa_jax.paths import STORES, AnyPath, PathLike, known_stores, require_named, to_path

KINDS: tuple[SourceKind, ...] = (
    IMAGES,
    FOLDER,
    WEBDATASET,
    ARRAY_RECORD,
    SAVED_DATASET,
    TFDS,
    PICTURE_TABLES,
    LISTING,
    ARRAYS,
    VIDEOS,
)
"""Every kind of input, in the order in which messages name them. The first that recognises an input opens it."""


MOST_TABLES = 16
"""Tables among a folder's pictures that are looked into: labels, as a rule."""


def accepted() -> str:
    """All kinds in words, as messages name them after "give"."""
    *others, last = (kind.wording for kind in KINDS)
    return f"{', '.join(others)}, or {last}"


def open_source(path: PathLike) -> Records:
    """Find the records of an input, by what it is.

    Several archives are given as a pattern, ``shard-*.tar`` or ``shard-{000..127}.tar``, or as a folder that
    holds no image but archives. After ``::`` stands which part of an input is meant where there are several: the
    ending of a sample's picture (``shard-*.tar::jpg``), the column of paths (``list.csv::image_path``), the array
    (``sets.npz::x_test``) or the feature (``tfds:NAME/SPLIT::image``). Several inputs in one name, as `open_sources`
    gives it, are each in full, with `` + `` between them.

    Raises:
        ArgumentError: it is nothing that can be scored, holds no record, or could be read in two ways.
        OSError: the machine, its disk or its network is in trouble.
    """
    name = str(path)
    require_named(name, "input")
    if len(names := _separate(name)) > 1:
        return open_sources(names)
    place, part = _place_and_part(name)
    if kind := _named(name):
        return kind.open(name, part=part)
    if (scheme := scheme_of(place)) in HERE:
        place = local_path(place)
    elif scheme and scheme not in STORES:
        raise ArgumentError(
            f"input {name}: an input lies on this machine or behind {known_stores()}; "
            f"pictures behind {scheme}:// are listed by their paths in a .csv or .parquet file."
        )
    if scheme in STORES:
        require_readable(place)
    source = to_path(place)
    if source.is_dir():
        return _open_directory(name if part else place, source, part)
    if source.is_file():
        return _open_files(name, [place], part)
    files = expand(place)
    if files != [place]:
        return _open_files(name, files, part)
    raise ArgumentError(f"input {text_key(name)} does not exist; give {accepted()}.")


def open_sources(paths: Sequence[PathLike], column: str | None = None) -> Records:
    """The records of one or more inputs; of several, the input's name stands before the key.

    Images by their names are one input, as if a pattern had named them: a shell that expands it changes no key.

    Args:
        paths: the inputs; see `open_source`.
        column: of the pictures or their paths, in each of them: what else stands behind ``::``.

    Raises:
        ArgumentError: there is none, one is given twice, or one cannot be opened.
    """
    names = [str(path) if column is None else _with_column(str(path), column) for path in paths]
    if not names:
        raise ArgumentError(f"no input is given; give {accepted()}.")
    if len(names) == 1:
        return open_source(names[0])
    in_full = list(map(name_in_full, names))
    require_apart(in_full)
    if IMAGES.are_files(in_full) and all(map(os.path.isfile, in_full)):
        return IMAGES.open(AND.join(in_full), in_full)
    return joined(in_full, list(map(open_source, names)))


def _with_column(name: str, column: str) -> str:
    place, part = _place_and_part(name)
    if part is not None:
        raise ArgumentError(f"input {text_key(name)} and column={column!r} both say what is meant of it; give one.")
    return f"{place}{PART}{column}"


def _separate(name: str) -> list[str]:
    return [name] if os.path.exists(name) else separate(name)


def name_in_full(name: str) -> str:
    """An input's name wherever the command is given: local paths in full."""
    if len(names := _separate(name)) > 1:
        return AND.join(map(name_in_full, names))
    kind = _named(name)
    return kind.in_full(name) if kind else full_path(name)


def _place_and_part(name: str) -> tuple[str, str | None]:
    """What stands before and behind `PART`; a file may be called so itself."""
    place, mark, part = name.rpartition(PART)
    if not mark or "/" in part or (scheme_of(name) is None and os.path.exists(name)):
        return name, None
    if not place or not part:
        raise ArgumentError(f"input {name}: give an input before {PART} and what is meant of it behind, or neither.")
    return place, part


def _named(name: str) -> SourceKind | None:
    return next((kind for kind in KINDS if kind.is_named(name)), None)


def _open_directory(name: str, directory: AnyPath, part: str | None) -> Records:
    place = str(directory)
    entries = sorted(entry.name for entry in directory.iterdir())
    for kind in KINDS:
        if kind.is_folder(entries):
            return kind.open(name, [place], part)
    contents = look_through(place, _may_hold_pictures)
    others = _further_pictures(place, contents)
    archives = [file for file in others if _is_archive(file)]
    if contents.pictures and others:
        raise ArgumentError(
            f"input {text_key(name)} holds {_counted(contents.pictures, 'image', 'images')} and "
            f"{_counted(others, 'file', 'files')} of further pictures: which are meant? Name those files themselves "
            f"({text_key(os.path.join(place, others[0]))} or a pattern), or move them, or list the images in a .csv "
            "file."
        )
    if archives and (compressed := next(filter(_is_compressed, others), None)):
        raise ArgumentError(
            f"input {text_key(name)} holds archives that are compressed, such as {text_key(compressed)}, and others "
            f"that are not, such as {text_key(archives[0])}: decompress the former, or name the latter by a pattern."
        )
    if archives and all(map(is_parquet, archives)):
        tables = without_lists([os.path.join(place, file) for file in contents.claimed if is_parquet(file)])
        archives = others = [table.removeprefix(os.path.join(place, "")) for table in tables]
    for folder in sorted({os.path.dirname(file) for file in archives}):
        _require_no_directory_of_a_kind(os.path.join(place, folder))
    if archives:
        records = _open_files(name, [os.path.join(place, file) for file in others], part)
        besides = contents.others + len(contents.claimed) - len(others)
        return _with_problems(replace(records, left_out=records.left_out + besides), contents.problems)
    videos = [] if contents.pictures else [file for file in contents.claimed if is_video(file)]
    if videos:  # beside pictures they are left out, as a camera's are that has both in one folder
        records = VIDEOS.open(place, [os.path.join(place, file) for file in videos], part)
        besides = contents.others + len(contents.claimed) - len(videos)
        return _with_problems(replace(records, left_out=besides), contents.problems)
    if part is not None:
        raise ArgumentError(f"input {name}: a folder of images has no columns or other parts; leave out {PART}{part}.")
    return records_of(name, contents)


def _further_pictures(place: str, contents: Contents) -> list[str]:
    """Files among a folder's pictures, or in place of them, that hold or list further ones."""
    found = [f for f in contents.claimed if (_is_archive(f) and not is_parquet(f)) or _is_compressed(f)]
    found += [file for file in contents.claimed if ARRAYS.is_file(file) and holds_pictures(f"{place}/{file}")]
    if contents.pictures and (tables := [file for file in contents.claimed if is_table(file)]):
        known = frozenset(file.rpartition("/")[2] for file in contents.pictures)
        found += [file for file in tables[:MOST_TABLES] if lists_others(f"{place}/{file}", known)]
    elif not contents.pictures:
        tables = [file for file in contents.claimed if is_parquet(file)]
        found += [file for file in tables[:MOST_TABLES] if is_picture_table(f"{place}/{file}")]
    return sorted(found)


def _require_no_directory_of_a_kind(place: str) -> None:
    """Raise ArgumentError where archives are part of something else, which says how it is opened."""
    entries = sorted(entry.name for entry in to_path(place).iterdir())
    for kind in KINDS:
        if kind.is_folder(entries):
            kind.open(place, [place])


def _with_problems(records: Records, problems: Sequence[tuple[str, Unusable]]) -> Records:
    """The same records, and a failure for every folder that could not be looked into."""
    if not problems:
        return records
    told = [(text_key(file), problem) for file, problem in problems]
    keys, locators = unique_records([*zip(records.keys, records.locators, strict=True), *told])
    return replace(records, keys=keys, locators=locators)


def _is_archive(name: str) -> bool:
    return any(kind.several and kind.is_file(name) for kind in KINDS if kind is not VIDEOS)


def _is_compressed(name: str) -> bool:
    return name.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"))


def _may_hold_pictures(name: str) -> bool:
    return _is_archive(name) or _is_compressed(name) or ARRAYS.is_file(name) or is_table(name) or is_video(name)


def _counted(names: Sequence[str], one: str, many: str) -> str:
    return f"{len(names)} {one if len(names) == 1 else many} ({text_key(names[0])})"


def _open_files(name: str, files: Sequence[str], part: str | None) -> Records:
    missing = [file for file in files if not to_path(file).is_file()]
    if missing:
        raise ArgumentError(
            f"input {text_key(name)} names {len(missing)} files that do not exist, such as {text_key(missing[0])}."
        )
    for kind in KINDS:
        if kind.are_files(files):
            return kind.open(name, files, part)
    kinds = [kind for kind in KINDS if any(map(kind.is_file, files))]
    if len(kinds) > 1 and all(any(kind.is_file(file) for kind in kinds) for file in files):
        examples = " and ".join(text_key(next(filter(kind.is_file, files))) for kind in kinds)
        raise ArgumentError(f"input {text_key(name)} holds files of several kinds, {examples}; give one of them.")
    if len(kinds) == 1 and len(files) > 1 and all(map(kinds[0].is_file, files)):
        raise ArgumentError(f"input {text_key(name)}: {len(files)} files together are of no known kind; give one.")
    hint = " Decompress it first." if _is_compressed(name) else ""
    if any(map(is_image, files)):
        hint = " Images among other files are given by their folder, or by a pattern of their own such as *.png."
    raise ArgumentError(f"input {text_key(name)} is of no known kind; give {accepted()}.{hint}")
