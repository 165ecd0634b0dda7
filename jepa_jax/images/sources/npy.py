"""The ``.npy`` format, as far as uint8 pictures need it: the header as text that is matched, never evaluated."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np

from jepa_jax.errors import ImageError
from jepa_jax.images.sources.names import text_key

MAGIC = b"\x93NUMPY"

LONGEST_HEADER = 10_000
"""Bytes, as in NumPy itself."""


@dataclass(frozen=True)
class Header:
    """What stands before an array's values.

    Attributes:
        dtype: as it is written, ``|u1`` for uint8.
        shape: of the array.
        fortran: whether the first index runs fastest.
        size: bytes of the header itself.
    """

    dtype: str
    shape: tuple[int, ...]
    fortran: bool
    size: int

    @property
    def is_uint8(self) -> bool:
        """Whether every value is one byte without sign."""
        return self.dtype.lstrip("|<>=") in ("u1", "B", "uint8")

    @property
    def values(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)


def read_header(stream: IO[bytes]) -> Header:
    """The header at a stream's position, which is then at the first value.

    Raises:
        ValueError: it is none, or a damaged one.
    """
    start = stream.read(8)
    if start[:6] != MAGIC:
        raise ValueError("it does not begin as a .npy file does")
    if start[6:] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise ValueError(f"its version {'.'.join(map(str, start[6:]))} is unknown")
    width, code = (2, "<H") if start[6] == 1 else (4, "<I")
    length = stream.read(width)
    if len(length) < width:
        raise ValueError("it ends within its header")
    (size,) = struct.unpack(code, length)
    if size > LONGEST_HEADER:
        raise ValueError(f"its header claims {size} bytes")
    text = stream.read(size).decode("utf-8" if start[6] == 3 else "latin-1")
    descr = re.search(r"""['"]descr['"]\s*:\s*('[^']*'|"[^"]*"|\[)""", text)
    fortran = re.search(r"""['"]fortran_order['"]\s*:\s*(True|False)\b""", text)
    shape = re.search(r"""['"]shape['"]\s*:\s*\(([^)]*)\)""", text)
    if not (descr and fortran and shape):
        raise ValueError("its header cannot be understood")
    lengths = [part.strip() for part in shape.group(1).split(",")]
    if not all(re.fullmatch(r"\d{1,18}L?", part) for part in lengths if part):
        raise ValueError(f"its header claims the shape ({shape.group(1)[:100]})")
    sides = tuple(int(part.rstrip("L")) for part in lengths if part)
    dtype = "structured" if descr.group(1) == "[" else descr.group(1)[1:-1]
    return Header(dtype, sides, fortran.group(1) == "True", 8 + width + size)


def require_bytes(header: Header, there: int) -> None:
    """Raise ValueError where another number of bytes than the header tells of follows it: before they are read."""
    if there < header.values:
        raise ValueError(f"it ends early: {there} of the {header.values} bytes of {header.shape} are there")
    if there > header.values:
        raise ValueError(f"{there - header.values} bytes follow the array of {header.shape}, which would be left out")


def read_values(header: Header, read: Callable[[int], bytes]) -> np.ndarray:
    """The whole uint8 array; ``read`` gives as many bytes as it is asked for."""
    data = np.frombuffer(read(header.values), np.uint8)
    return data.reshape(header.shape, order="F" if header.fortran else "C")


@dataclass(frozen=True)
class RowReader:
    """From a picture's position to the picture: read where it lies, since a mapped file that is cut kills the process.

    Attributes:
        path: of a local file.
        header: of its array, in C order.
    """

    path: str
    header: Header

    def __call__(self, index: int) -> np.ndarray:
        """The picture, uint8 [H, W] or [H, W, C].

        Raises:
            ImageError: the file ends before it.
        """
        shape = self.header.shape[1:]
        size = math.prod(shape)
        with open(self.path, "rb", buffering=0) as stream:
            data = bytearray()
            while len(data) < size:
                more = os.pread(stream.fileno(), size - len(data), self.header.size + index * size + len(data))
                if not more:
                    raise ImageError(
                        f"{text_key(self.path)} ends within this record: {len(data)} of its {size} bytes are there"
                    )
                data += more
        return np.frombuffer(data, np.uint8).reshape(shape)
