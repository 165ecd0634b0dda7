"""WebDataset: pictures in tar archives, or videos, where there is no picture or a video's ending is asked for.

The key is WebDataset's: the member's path up to the first dot of its file name. A sample's other members
(captions, labels) are left out. Of a sample that holds several pictures, as an image and its mask, one must be named
by its ending: ``shard-*.tar::jpg``, or ``::jpg;png`` for the first of these that is there; with ``::*`` all are
scored, each with its ending in its key. Where there are several archives, the archive's name stands before the key,
as ``shard-0001.tar/KEY``. Nothing is ever unpacked: members are read where they lie.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Any, cast

from jepa_jax.errors import ArgumentError
from jepa_jax.images.reasons import sentence
from jepa_jax.images.sources.folder import is_image
from jepa_jax.images.sources.kind import PART, SourceKind
from jepa_jax.images.sources.places import part_place
from jepa_jax.images.sources.records import Records, Unusable, read_slice, text_key, unique_records
from jepa_jax.images.sources.videos import PACKAGE, is_video, open_slice
from jepa_jax.paths import to_path

DAMAGE = "#damage"
"""The key under which what an archive has lost is recorded."""

LONGEST_HEADER = 2**20
"""Bytes of one header; names and attributes take a few thousand."""

EACH = "*"
"""In the place of an ending: every picture of a sample."""

Slice = tuple[str, int, int, str]
"""Where a picture lies: its archive, offset and size, and its name there."""

Member = tuple[str, "Slice | Unusable"]
"""A member's name in its archive, and where it lies, or why it cannot be used."""

OTHER = ("", Unusable("it is neither a picture nor a video"))
"""In the place of a member that cannot be scored, of which there may be millions."""


def open_webdataset(name: str, archives: Sequence[str], ending: str | None = None) -> Records:
    """The pictures of one or more tar archives, in the archives' order; or the videos.

    Args:
        name: what the user called the input.
        archives: the files.
        ending: which picture of a sample: what follows the first dot of its name, or several endings with ``;``
            between them, of which the first that is there is taken, or ``*`` for all.

    Raises:
        ArgumentError: there is no picture, a sample has several and none was named, the archive is compressed, or
            there are videos and the package that decodes them is not installed.
    """
    entries: list[tuple[str, Any]] = []
    left_out = 0
    held = [list(_members(archive, _endings(ending))) for archive in archives]
    wanted, videos = _wanted([member for members in held for member, _ in members], _endings(ending))
    for prefix, archive, members in zip(_prefixes(archives), archives, held, strict=True):
        damage = [members.pop()] if members and members[-1][0] is DAMAGE else []
        pictures = [(member, locator) for member, locator in members if wanted(member)]
        chosen = _one_of_each(name, archive, pictures, ending) + damage
        left_out += len(members) + len(damage) - len(chosen)
        entries += [(prefix + text_key(key), locator) for key, locator in chosen]
    if not any(not isinstance(locator, Unusable) for _, locator in entries):
        reasons = "".join(f"; {locator.reason}" for _, locator in entries[:3])
        raise ArgumentError(f"input {name} holds no image ({left_out} other members{reasons}).")
    keys, locators = unique_records(entries)
    reader = open_slice if videos else read_slice
    return Records(name, keys, locators, reader, tuple(archives), left_out, places=_place, videos=videos)


def _wanted(members: Sequence[str], endings: Sequence[str]) -> tuple[Callable[[str], bool], bool]:
    """Which members are scored: pictures and what has a named ending, or videos; and whether videos are."""
    if endings:
        videos = any(is_video(f"x.{ending}") for ending in endings)
    else:
        videos = any(map(is_video, members)) and not any(map(is_image, members))
    if videos:
        PACKAGE.require()
    is_kind = is_video if videos else is_image
    return lambda member: is_kind(member) or _ending(member).lower() in endings, videos


def _one_of_each(name: str, archive: str, pictures: Sequence[Member], ending: str | None) -> list[Member]:
    """One picture of every sample under the sample's key, or all of them under their own names."""
    samples: dict[str, list[str]] = {}
    for member in dict.fromkeys(member for member, _ in pictures):
        samples.setdefault(_key(member), []).append(member)
    if ending is None and (several := next((held for held in samples.values() if len(held) > 1), None)):
        endings = [text_key(_ending(member)) for member in several]
        raise ArgumentError(
            f"input {name}: the sample {_key(several[0])!r} in {text_key(archive)} holds {len(several)} pictures, "
            f"{' and '.join(map(text_key, several[:5]))}. Say which one is scored: '{name}{PART}{endings[0]}', or "
            f"'{name}{PART}{EACH}' for each."
        )
    if ending in (None, EACH):
        alone = {member for held in samples.values() if len(held) == 1 for member in held}
        return [(_key(member) if member in alone else member, locator) for member, locator in pictures]
    taken = {key: _first(held, _endings(ending)) for key, held in samples.items()}
    chosen: list[Member] = []
    for member, locator in pictures:
        key = _key(member)
        if taken[key] == member:
            chosen.append((key, locator))
        elif taken[key] is None and samples[key][0] == member:
            held = ", ".join(map(text_key, samples[key][:5]))
            chosen.append((key, Unusable(f"no picture of this sample ends in .{ending}: it holds {held}")))
    return chosen


def _endings(ending: str | None) -> list[str]:
    return [] if ending in (None, EACH) else [choice.strip().strip(".").lower() for choice in ending.split(";")]


def _first(members: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The member with the first of some endings that is there."""
    by_ending = {_ending(member).lower(): member for member in members}
    return next((by_ending[ending] for ending in wanted if ending in by_ending), None)


def _prefixes(archives: Sequence[str]) -> list[str]:
    """What stands before the keys of each archive: its name, with as many folders as tell them apart."""
    if len(archives) == 1:
        return [""]
    parts = [PurePosixPath(archive).parts for archive in archives]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(archives) and depth < max(map(len, parts)):
        depth += 1
    return [f"{text_key('/'.join(part[-depth:]))}/" for part in parts]


def _key(member: str) -> str:
    """WebDataset's key of a member: all up to the first dot after the last slash."""
    folder, slash, file = member.rpartition("/")
    return folder + slash + (file.split(".")[0] or file)


def _ending(member: str) -> str:
    """All after that dot, as WebDataset names a sample's members."""
    return member[len(_key(member)) :].removeprefix(".")


def _members(archive: str, endings: Sequence[str]) -> Iterator[Member]:
    """Every member that may be scored, `OTHER` for each that may not, and `DAMAGE` last where something is lost."""
    with to_path(archive).open("rb") as file:
        stream = _Bounded(file)
        with _opened(archive, stream) as tar:
            count = 0
            while True:
                try:
                    member = tar.next()
                    if member is None:
                        _require_end(tar, stream)
                        return
                    if member.size < 0:
                        raise tarfile.ReadError(f"member {text_key(member.name)!r} claims a size of {member.size}")
                except Exception as error:  # what `tarfile` raises at damaged headers is no closed set
                    if isinstance(error, OSError) and error.errno is not None:
                        raise  # a disk that is away
                    problem = f"the archive is damaged after {count} members, what follows is lost: {sentence(error)}"
                    yield DAMAGE, Unusable(problem)
                    return
                count += 1
                vars(tar)["members"].clear()  # tarfile would keep every header in memory
                if not member.isdir():
                    if is_image(member.name) or is_video(member.name) or _ending(member.name).lower() in endings:
                        yield member.name, _locate(archive, member, stream.size)
                    else:
                        yield OTHER


class _Bounded(io.RawIOBase):
    """An archive's file, in which no header can claim more memory than there are bytes, or be as long as no header is.

    `tarfile` reads headers alone here.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        if size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        data = self._file.read(size)
        if size > tarfile.BLOCKSIZE and re.search(rb"\d{200}", data):  # whose parsing takes the square of the time
            raise tarfile.ReadError("a header is no header")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(max(0, min(offset, self.size)))

    def tell(self) -> int:
        return self._file.tell()


def _require_end(tar: tarfile.TarFile, stream: _Bounded) -> None:
    """Raise where an archive does not end as archives do: `tarfile` takes a header that it cannot read for the end."""
    stream.seek(tar.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the file ends without the mark of an archive's end")
    if any(block):
        raise tarfile.ReadError("the next header cannot be read")
    while block := stream.read(tarfile.RECORDSIZE):
        if any(block):
            raise tarfile.ReadError("something follows the mark of its end, such as another archive")


def _opened(archive: str, stream: _Bounded) -> tarfile.TarFile:
    try:
        # "r:" is tar without compression: members of a compressed one cannot be read one by one.
        return tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:", errors="surrogateescape")
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArgumentError(
            f"input {archive} is no tar archive, or a compressed one ({sentence(error)}); decompress it first."
        ) from error


def _locate(archive: str, member: tarfile.TarInfo, end: int) -> Slice | Unusable:
    if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        return Unusable("the member's path leads out of the archive")
    if member.islnk() or member.issym():
        return Unusable(f"the member is a link to {text_key(member.linkname)!r}, not a file")
    if not member.isreg() or member.issparse():
        return Unusable("the member is no regular file")
    if member.offset_data + member.size > end:
        there = max(0, end - member.offset_data)
        return Unusable(f"the archive ends within this record: {there} of its {member.size} bytes are there")
    return archive, member.offset_data, member.size, member.name


def _place(locator: Slice) -> str | None:
    archive, _, _, member = locator
    return part_place(archive, member)


def _is_tar(name: str) -> bool:
    return name.lower().endswith(".tar")


WEBDATASET = SourceKind(
    wording=".tar (WebDataset)",
    read=open_webdataset,
    is_file=_is_tar,
    several=True,
    noun="tar archives",
    read_part=open_webdataset,
)
