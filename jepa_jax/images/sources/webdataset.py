"""WebDataset: pictures in tar archives.

The key is WebDataset's: the member's path up to the first dot of its file name. A sample's other members
(captions, labels) are left out. Where one sample holds several pictures, each has its own ending in its key;
where there are several archives, the archive's name stands before the key, as ``shard-0001.tar/KEY``.
Nothing is ever unpacked: members are read where they lie.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

from etils import epath

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.folder import is_image
from jepa_jax.images.sources.kind import SourceKind
from jepa_jax.images.sources.records import Records, Unusable, read_slice, text_key, unique_records

DAMAGE = "#damage"
"""The key under which what an archive has lost is recorded."""


def open_webdataset(name: str, archives: Sequence[str]) -> Records:
    """The pictures of one or more tar archives, in the archives' order.

    Raises:
        ArgumentError: there is no picture, or the archive is compressed.
    """
    entries: list[tuple[str, Any]] = []
    left_out = 0
    for archive in archives:
        prefix = f"{text_key(epath.Path(archive).name)}/" if len(archives) > 1 else ""
        members = list(_members(archive))
        pictures = [(member, locator) for member, locator in members if locator is not None]
        left_out += len(members) - len(pictures)
        in_sample = Counter(_key(member) for member in {member for member, _ in pictures})
        entries += [
            (prefix + text_key(_key(member) if in_sample[_key(member)] == 1 else member), locator)
            for member, locator in pictures
        ]
    if not any(not isinstance(locator, Unusable) for _, locator in entries):
        reasons = "".join(f"; {locator.reason}" for _, locator in entries[:3])
        raise ArgumentError(f"input {name} holds no image ({left_out} other members{reasons}).")
    keys, locators = unique_records(entries)
    return Records(name, keys, locators, read_slice, tuple(archives), left_out)


def _key(member: str) -> str:
    """WebDataset's key of a member: all up to the first dot after the last slash."""
    folder, slash, file = member.rpartition("/")
    return folder + slash + (file.split(".")[0] or file)


def _members(archive: str) -> Iterator[tuple[str, tuple[str, int, int] | Unusable | None]]:
    """(name, where it lies, or why it cannot be used, or None if it is no picture) of every member."""
    with epath.Path(archive).open("rb") as stream, _opened(archive, stream) as tar:
        count = 0
        while True:
            try:
                member = tar.next()
                if member is None:
                    _require_end(tar, stream)
                    return
                if member.size < 0:
                    raise tarfile.ReadError(f"member {text_key(member.name)!r} claims a size of {member.size}")
            except (tarfile.TarError, OSError, ValueError) as error:
                problem = f"the archive is damaged after {count} members, what follows is lost: {error}"
                yield DAMAGE, Unusable(problem)
                return
            count += 1
            vars(tar)["members"].clear()  # tarfile would keep every header in memory
            if not member.isdir():
                yield member.name, _locate(archive, member)


def _require_end(tar: tarfile.TarFile, stream: IO[bytes]) -> None:
    """Raise where an archive does not end as archives do: `tarfile` takes a header that it cannot read for the end."""
    stream.seek(tar.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the file ends without the mark of an archive's end")
    if any(block):
        raise tarfile.ReadError("the next header cannot be read")


def _opened(archive: str, stream: IO[bytes]) -> tarfile.TarFile:
    try:
        # "r:" is tar without compression: members of a compressed one cannot be read one by one.
        return tarfile.open(fileobj=stream, mode="r:", errors="surrogateescape")
    except tarfile.TarError as error:
        raise ArgumentError(
            f"input {archive} is no tar archive, or a compressed one ({error}); decompress it first."
        ) from error


def _locate(archive: str, member: tarfile.TarInfo) -> tuple[str, int, int] | Unusable | None:
    if not is_image(member.name):
        return None
    if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        return Unusable("the member's path leads out of the archive")
    if member.islnk() or member.issym():
        return Unusable(f"the member is a link to {text_key(member.linkname)!r}, not a file")
    if not member.isreg() or member.issparse():
        return Unusable("the member is no regular file")
    return archive, member.offset_data, member.size


def _is_tar(name: str) -> bool:
    return name.endswith(".tar")


WEBDATASET = SourceKind(wording=".tar (WebDataset)", read=open_webdataset, is_file=_is_tar, several=True)
