"""A folder of image files, searched recursively."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from etils import epath

from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources.kind import SourceKind
from jepa_jax.images.sources.records import Records, Unusable, read_file, text_key, unique_records

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


def open_folder(name: str, files: Sequence[str]) -> Records:
    """Every image below a folder, ordered by path; the key is the path below the folder, with slashes.

    Linked folders are not entered, since they may lead back: such a link is recorded as a failure, and so is
    a folder that cannot be listed.

    Raises:
        ArgumentError: it holds no image.
    """
    path = epath.Path(name)
    root = os.fspath(path).rstrip("/") or "/"
    walk = _walk_remote(path) if "://" in root else _walk_local(root)
    found: list[tuple[str, str | Unusable]] = []
    left_out = 0
    for file, problem in walk:
        if problem or is_image(file):
            found.append((text_key(file), problem or file))
        else:
            left_out += 1
    if not any(isinstance(file, str) for _, file in found):
        reasons = "".join(f"; {key}: {file.reason}" for key, file in found[:3] if isinstance(file, Unusable))
        raise ArgumentError(
            f"input {path} holds no image ({left_out} other files{reasons}); "
            f"looked for {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    found.sort(key=lambda entry: entry[0])
    keys, below = unique_records(found)
    others = {i: file for i, (key, file) in enumerate(zip(keys, below, strict=True)) if file != key}
    return Records(str(path), keys, _Paths(root, keys, others), read_file, (root,), left_out)


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


def _walk_remote(root: epath.Path) -> Iterator[tuple[str, None]]:
    for folder, _, files in root.walk():
        for file in files:
            yield "/".join((*folder.relative_to(root).parts, file)), None


FOLDER = SourceKind(wording="a folder of images", read=open_folder)
"""Any folder that no other kind claims."""
