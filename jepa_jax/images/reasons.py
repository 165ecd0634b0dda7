"""Why a record has no input, in one sentence; and which errors are no record's own."""

from __future__ import annotations

import contextlib
import errno
import io
import re
import socket
import struct

from PIL import TiffImagePlugin

from jepa_jax.errors import ImageError
from jepa_jax.images.headers.samples import channels_in_words, refused
from jepa_jax.images.headers.tiff import tags_described
from jepa_jax.paths import TRY_LATER

OF_THE_MACHINE = frozenset(
    (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
    )
)
"""Errors of a machine that is out of file handles or memory, or of a disk or network that is away: no image's own."""

WEB_LIBRARIES = frozenset(("httpx", "httpx2", "requests"))
"""Which the hub's client uses, by its version."""

NO_CONNECTION = frozenset(("TransportError", "ConnectionError", "Timeout"))
"""Their errors of a connection, which are none of Python's own."""

UNKNOWN = "the content is no known image format"

LONGEST = 300
"""Characters of another library's message that are passed on."""

FRAMES = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]")


def sentence(error: BaseException) -> str:
    """What an error says, as the end of a sentence: its first line, its name where it says nothing."""
    lines = [line for line in map(str.strip, str(error).splitlines()) if line]
    said = "".join(c if c.isprintable() else "?" for c in (lines or [type(error).__name__])[0])
    return (said if len(said) <= LONGEST else said[:LONGEST] + "...").rstrip(".")


def of_the_machine(error: BaseException | None) -> bool:
    """Whether an error, or the one that it was raised from, has to do with the machine and not with what is read."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ConnectionError | TimeoutError | ImportError | MemoryError | socket.gaierror):
            return True
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            return True
        if _of_the_web(error):
            return True
        # Not what was merely handled meanwhile: libraries try imports that may fail.
        error = error.__cause__
    return False


def _of_the_web(error: BaseException) -> bool:
    """Whether a connection failed, or a server said that it is in trouble: as the hub's client has it."""
    kinds = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__)
    if any(library in WEB_LIBRARIES and name in NO_CONNECTION for library, name in kinds):
        return True
    return getattr(getattr(error, "response", None), "status_code", None) in TRY_LATER


def unopened(content: bytes) -> ImageError:
    """Why Pillow opens none of this: where it is of a known format, the layout that Pillow does not know."""
    with contextlib.suppress(Exception):
        if content[:4] in TiffImagePlugin.PREFIXES:
            return refused("TIFF", tags_described(_tags(content)))
        if content.startswith(b"\xff\xd8\xff") and (frame := FRAMES.search(content)):
            bits, _, _, channels = struct.unpack_from(">BHHB", content, frame.end() + 2)
            if bits != 8 or channels not in (1, 3, 4):
                return refused("JPEG", f"has {bits} bits per sample and {channels_in_words(channels)}")
    return ImageError(UNKNOWN)


def _tags(content: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    stream = io.BytesIO(content)
    tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(16 if content[2:3] == b"\x2b" else 8))
    stream.seek(tags.next)
    tags.load(stream)
    if TiffImagePlugin.BITSPERSAMPLE not in tags:
        raise ValueError("no layout")
    return tags
