"""JPEG 2000: Pillow shifts samples into 8 or 16 bits, and lets colours of more than 8 bits run over: white comes out
black.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from PIL import Image

from jepa_jax.errors import ImageError
from jepa_jax.images.headers.samples import Samples, encoded, refused

CODESTREAM = b"\xff\x4f\xff\x51"
"""Start of codestream and of its size marker."""


@dataclass(frozen=True)
class Component:
    """Bits of a component's samples, whether they are signed, and its subsampling across and down."""

    bits: int
    signed: bool
    across: int
    down: int


def jpeg2000_samples(image: Image.Image) -> Samples:
    """The samples of a JPEG 2000 file."""
    content = encoded(image)
    if content is None:
        return Samples()
    components = _components(content)
    bits = max(component.bits for component in components)
    if len({component.bits for component in components}) > 1 or any(component.signed for component in components):
        raise refused("JPEG 2000", "has signed components, or components of different depths")
    if bits > 16 or (bits > 8 and image.mode != "I;16"):
        raise refused("JPEG 2000", f"has {bits} bits in mode {image.mode}")
    if bits > 8:
        return Samples(white=(2**bits - 1) << (16 - bits))
    return Samples(stretch=255 / ((2**bits - 1) << (8 - bits)) if image.mode not in ("P", "PA") else 1.0)


def _components(content: bytes) -> list[Component]:
    try:
        at = _codestream(content)
        (count,) = struct.unpack(">H", content[at + 40 : at + 42])
        fields = content[at + 42 : at + 42 + 3 * count]
        return [Component((s & 0x7F) + 1, bool(s & 0x80), x, y) for s, x, y in struct.iter_unpack("BBB", fields)]
    except (struct.error, ValueError) as error:
        raise ImageError("the image cannot be decoded: its codestream has no header") from error


def _codestream(content: bytes) -> int:
    """Where it begins: the file is one, or a box ``jp2c`` holds it."""
    if content.startswith(CODESTREAM):
        return 0
    at = 0
    while at + 8 <= len(content):
        size, kind, long = struct.unpack(">I4sQ", content[at : at + 16].ljust(16, b"\0"))
        header = 16 if size == 1 else 8
        if kind == b"jp2c" and content.startswith(CODESTREAM, at + header):
            return at + header
        size = long if size == 1 else size
        if size < header:
            break
        at += size
    raise ValueError("no codestream")
