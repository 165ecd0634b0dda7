"""Videos, a clip of each: a folder of them, searched recursively, or some by their names."""

from __future__ import annotations

import os
from collections.abc import Sequence

from jepa_jax.errors import ImageError
from jepa_jax.images.sources.folder import below_shared_folder
from jepa_jax.images.sources.kind import Package, SourceKind
from jepa_jax.images.sources.places import file_place
from jepa_jax.images.sources.records import Records, text_key, unique_records
from jepa_jax.images.sources.remote import scheme_of
from jepa_jax.images.videos import VideoFile
from jepa_jax.paths import to_path

VIDEO_SUFFIXES = frozenset(".mp4 .m4v .mov .webm .mkv .avi".split())
"""Files with these endings are records; what they really hold is told by their content, not their name."""


def is_video(name: str) -> bool:
    """Whether a file's name ends as a video's."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def open_video(path: str) -> VideoFile:
    """The reader: a video is read while it is decoded.

    Raises:
        ImageError: it is no regular file.
        OSError: it is not there.
    """
    if not scheme_of(path):
        status = os.stat(path)
        if not os.path.isfile(path):  # reading a pipe or a device might never end
            raise ImageError("it is no regular file")
        if not status.st_size:
            raise ImageError("the file is empty")
    return VideoFile(path)


def open_slice(locator: tuple[str, int, int, str]) -> VideoFile:
    """The reader of a video in an archive: (archive, offset, bytes, its name there)."""
    path, offset, size, _ = locator
    return VideoFile(path, (offset, size))


def open_videos(name: str, files: Sequence[str]) -> Records:
    """A record a video, ordered by path; the key is the path below the folder, with slashes.

    Args:
        name: of a folder, or what names the files.
        files: the videos.
    """
    folder, below = below_shared_folder(files)
    if to_path(name).is_dir():
        folder = str(to_path(name)).rstrip("/") or "/"
        below = [file.removeprefix(folder).lstrip("/") for file in files]
    keys, locators = unique_records(sorted(zip(map(text_key, below), files, strict=True)))
    return Records(name, keys, locators, open_video, (folder,), file_of=file_place, videos=True)


PACKAGE = Package("av", "videos", "video")

VIDEOS = SourceKind(
    wording="a folder or a pattern of videos",
    read=open_videos,
    is_file=is_video,
    several=True,
    package=PACKAGE,
    noun="videos",
)
