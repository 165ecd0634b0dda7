"""What a job scores: an ordered list of records, each with a stable key, readable one by one."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from etils import epath
from PIL import Image

from jepa_jax.encoders.preprocessing import preprocess_one
from jepa_jax.encoders.specs import PreprocessSpec
from jepa_jax.errors import ArgumentError, ImageError

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .tga".split()
)
"""Files with these endings are records; what they really hold is told by their content, not their name."""

MAX_PIXELS = 89_478_485
"""Pillow's own threshold of a likely decompression bomb: 256 MiB of RGB."""


class Source(Protocol):
    """An ordered collection of encoded images."""

    @property
    def keys(self) -> Sequence[str]:
        """One stable, unique key per record; its position is the record's index."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded image."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """Every image below a folder, ordered by path; the key is the path below the folder, with slashes.

    Attributes:
        root: the folder.
        paths: the files.
        keys: their keys.
        left_out: how many files have no image ending.
    """

    root: epath.Path
    paths: tuple[epath.Path, ...]
    keys: tuple[str, ...]
    left_out: int

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return self.paths[index].read_bytes()


def open_source(path: epath.PathLike) -> FolderSource:
    """Find the images below a folder.

    Raises:
        ArgumentError: it is no folder, or holds no image.
    """
    root = epath.Path(path)
    if not root.is_dir():
        raise ArgumentError(f"input {path} is not a folder.")
    files = _walk(root)
    images = sorted(
        ((_key(file, root), file) for file in files if file.suffix.lower() in IMAGE_SUFFIXES),
        key=lambda pair: pair[0],
    )
    if not images:
        raise ArgumentError(
            f"input {path} holds no image ({len(files)} other files); looked for {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    keys, paths = zip(*images, strict=True)
    return FolderSource(root, paths, keys, len(files) - len(images))


def _walk(folder: epath.Path) -> list[epath.Path]:
    """Every file below a folder. Linked folders are not entered: they may lead back."""
    files = []
    for entry in folder.iterdir():
        if entry.is_dir():
            if not os.path.islink(os.fspath(entry)):
                files.extend(_walk(entry))
        else:
            files.append(entry)
    return files


def _key(file: epath.Path, root: epath.Path) -> str:
    """The path below the root; bytes of a name that are no UTF-8 are escaped, since tables hold text."""
    relative = "/".join(file.relative_to(root).parts)
    return relative.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def keys_digest(keys: Sequence[str]) -> str:
    """SHA-256 over all keys in order: the same digest means the same records in the same shards."""
    state = hashlib.sha256()
    for key in keys:
        state.update(key.encode())
        state.update(b"\0")
    return state.hexdigest()


def decode(data: bytes, spec: PreprocessSpec) -> np.ndarray:
    """Encoded image to encoder input, float32 [crop, crop, 3]; of an animation, the first frame.

    Raises:
        ImageError: it cannot be used; the message is the reason that a job records.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"the image has {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS}; shrink it"
                )
            return preprocess_one(image, spec)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"the image is too large: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("the content is no known image format") from error
    except Exception as error:  # what decoders raise at damaged files is no closed set
        raise ImageError(f"the image cannot be decoded: {error}") from error
