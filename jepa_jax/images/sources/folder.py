"""A folder of image files, searched recursively."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.kind import SourceKind
from jepa_jax.images.sources.records import Records, Unusable, read_file, text_key, unique_records
from jepa_jax.paths import patiently, store_of, to_path

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .tga".split()
)
"""Files with these endings are records; what they really hold is told by their content, not their name."""


@dataclass(frozen=True)
class _Paths(Sequence):
    """Locators below a folder. The key is the path wherever that is text, so that ten million are not held twice.

    Attributes:
        root: the folder.
        keys: of all records.
        others: by index, what is not at its key: names that are no text, and unusable records.
    """

    root: str
    keys: Sequence[str]
    others: dict[int, str | Unusable]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index):
        other = self.others.get(index)
        if isinstance(other, Unusable):
            return other
        return f"{self.root}/{other or self.keys[index]}"


def is_image(name: str) -> bool:
    """Whether a file's name ends as a picture's."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


@dataclass(frozen=True)
class Contents:
    """What lies below a folder, as paths below it.

    Attributes:
        pictures: all files with a picture's ending.
        problems: what cannot be looked into, and why.
        claimed: files that some other kind of input may claim.
        others: how many there are besides.
    """

    pictures: Sequence[str]
    problems: Sequence[tuple[str, Unusable]]
    claimed: Sequence[str]
    others: int


def look_through(name: str, claims: Callable[[str], bool] = lambda _: False) -> Contents:
    """List a folder, and all below it.

    Linked folders are not entered, since they may lead back: such a link is recorded as a failure, and so is
    a folder that cannot be listed.

    Args:
        name: of the folder.
        claims: whether a file that is no picture is to be listed, by its name.
    """
    root = _root(name)
    pictures: list[str] = []
    problems: list[tuple[str, Unusable]] = []
    claimed: list[str] = []
    others = 0
    for file, problem in _walk_remote(root) if "://" in root else _walk_local(root):
        if problem:
            problems.append((file, problem))
        elif is_image(file):
            pictures.append(file)
        elif claims(file):
            claimed.append(file)
        else:
            others += 1
    return Contents(pictures, problems, sorted(claimed), others)


def open_folder(name: str, files: Sequence[str]) -> Records:
    """Every image below a folder; see `records_of`."""
    return records_of(name, look_through(name))


def records_of(name: str, contents: Contents) -> Records:
    """Every image below a folder, ordered by path; the key is the path below the folder, with slashes.

    Raises:
        ArgumentError: it holds no image.
    """
    root = _root(name)
    left_out = contents.others + len(contents.claimed)
    if not contents.pictures:
        reasons = "".join(f"; {text_key(file)}: {problem.reason}" for file, problem in contents.problems[:3])
        meant = f" Is {text_key(contents.claimed[0])} meant? Then name that file." if contents.claimed else ""
        raise ArgumentError(
            f"input {text_key(name)} holds no image ({left_out} other files{reasons}); "
            f"looked for {', '.join(sorted(IMAGE_SUFFIXES))}.{meant}"
        )
    found: list[tuple[str, str | Unusable]] = [(text_key(file), file) for file in contents.pictures]
    found += [(text_key(file), problem) for file, problem in contents.problems]
    found.sort(key=lambda entry: entry[0])
    keys, below = unique_records(found)
    others = {i: file for i, (key, file) in enumerate(zip(keys, below, strict=True)) if file != key}
    return Records(str(to_path(name)), keys, _Paths(root, keys, others), read_file, (root,), left_out)


def open_images(name: str, files: Sequence[str]) -> Records:
    """Images by their names, in the order of these; the key is the path below the innermost folder that holds all."""
    shared, below = below_shared_folder(files)
    keys, locators = unique_records(zip(map(text_key, below), files, strict=True))
    return Records(name, keys, locators, read_file, (shared,))


def below_shared_folder(files: Sequence[str]) -> tuple[str, list[str]]:
    """The innermost folder that holds all files, and their paths below it."""
    folders = [file.split("/")[:-1] for file in files]
    apart = (depth for depth, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1)
    depth = next(apart, min(map(len, folders)))
    shared = "/".join(folders[0][:depth]) or ("/" if files[0].startswith("/") else ".")
    return shared, ["/".join(file.split("/")[depth:]) for file in files]


def _root(name: str) -> str:
    return str(to_path(name)).rstrip("/") or "/"


def _walk_local(root: str) -> Iterator[tuple[str, Unusable | None]]:
    """(path below the root, problem) of every file. `os.scandir` tells folders apart without a look at each file."""
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            entries = list(os.scandir(f"{root}/{below}"))
        except OSError as error:
            yield below or ".", Unusable(f"the folder cannot be listed: {error.strerror}")
            continue
        for entry in entries:
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(name + "/")
            elif entry.is_symlink() and os.path.isdir(entry.path):
                yield name, Unusable(f"a linked folder is not entered: it leads to {os.readlink(entry.path)!r}")
            else:
                yield name, None


def _walk_remote(root: str) -> Iterator[tuple[str, None]]:
    """The same behind a scheme: one listing of all that is below."""
    store, name = store_of(to_path(root))
    below = name.rstrip("/")
    for file in patiently(lambda: store.find(name)):
        if inside := file.removeprefix(below).lstrip("/"):  # a store may keep an empty object in the folder's own name
            yield inside, None


IMAGES = SourceKind("an image or a pattern of images", open_images, is_file=is_image, several=True)

FOLDER = SourceKind(wording="a folder of images", read=open_folder)
"""Any folder that no other kind claims."""
