"""The scans of a JPEG, from its markers: how many there are, and whether their data can cover the picture.

libjpeg fills up what a scan leaves out, and only warns. So each scan is held to the fewest bits that it can have:
a sequential one (ITU T.81, F.1.2) has at least a code of one bit for each block's DC coefficient and one for its AC
coefficients, a progressive one (G.1.2) at least a bit for each block's DC coefficient. Where there is one sequential
scan, the marker behind its data is taken away: libjpeg then says itself that it lacks data. Progressive scans have to
bring every coefficient to its full precision: that is what is missing where such a file was cut and closed again.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from jepa_jax.errors import ImageError

MAX_SCANS = 500
"""A progressive JPEG of more scans is refused: encoders write about 10, and each costs a pass over the picture."""

PADDING = b"\xff\x00" * 8
"""Behind a scan's last byte, since libjpeg looks some bits ahead: ones, which are no code's beginning to the end."""

BLANK_END = bytes(32)
"""What a file that was never filled up ends in."""

SOI, EOI, SOS, TEM = 0xD8, 0xD9, 0xDA, 0x01
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame's header; the others in this range define tables."""

SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2
"""Huffman-coded frames. Of arithmetic coding no fewest bits are known."""

NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True)
class Frame:
    """A frame's header: its process, size in pixels, and the sampling (across, down) of each component."""

    process: int
    width: int
    height: int
    sampling: dict[int, tuple[int, int]]

    def blocks(self, components: list[int]) -> int:
        """Blocks of 8 x 8 in a scan of these components."""
        across, down = (max(factors) for factors in zip(*self.sampling.values(), strict=True))
        if len(components) == 1:  # not interleaved: blocks that lie in the picture
            x, y = self.sampling[components[0]]
            return _up(_up(self.width * x, across), 8) * _up(_up(self.height * y, down), 8)
        units = _up(self.width, 8 * across) * _up(self.height, 8 * down)
        return units * sum(x * y for x, y in (self.sampling[component] for component in components))


@dataclass
class Scans:
    """What the markers tell.

    Attributes:
        frame: the frame's header, once it was met.
        count: of scans.
        end: where the data of the last scan end.
        finished: whether the end-of-image marker was met.
        missing: by component, how many low bits of each of its 64 coefficients no scan has brought.
    """

    frame: Frame | None = None
    count: int = 0
    end: int = 0
    finished: bool = False
    missing: dict[int, list[int]] = field(default_factory=dict)


def whole_jpeg(content: bytes) -> bytes:
    """The same file as libjpeg is to get it.

    Raises:
        ImageError: it has too many scans, or too few data for the picture in its header.
    """
    scans = _walk(content)
    if scans.frame is None or not scans.count:
        return content  # Pillow says what is wrong
    if scans.frame.process in (*SEQUENTIAL, PROGRESSIVE) and any(any(bits) for bits in scans.missing.values()):
        raise ended_early(scans.frame)
    if not scans.finished and content.endswith(BLANK_END):
        raise ended_early(scans.frame)
    if scans.frame.process in SEQUENTIAL and scans.count == 1 and scans.end < len(content):
        return content[: scans.end] + PADDING
    return content


def ended_early(frame: Frame) -> ImageError:
    """The reason."""
    return ImageError(f"the image data end early: they cannot cover the {frame.width} x {frame.height} pixels")


def _walk(content: bytes) -> Scans:
    scans, at = Scans(), 2
    while (at := content.find(b"\xff", at)) >= 0 and at + 1 < len(content):
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        at += 2
        if marker == EOI:
            scans.finished = True
            break
        if marker in (0, TEM, SOI) or 0xD0 <= marker <= 0xD7:
            continue
        (length,) = struct.unpack(">H", content[at : at + 2].rjust(2, b"\0"))
        segment = content[at + 2 : at + length]
        at += max(length, 2)
        if marker in FRAMES and scans.frame is None:
            scans.frame = _frame(marker, segment)
            scans.missing = {component: [8] * 64 for component in scans.frame.sampling} if scans.frame else {}
        elif marker == SOS and scans.frame:
            found = NEXT_MARKER.search(content, at)
            scans.end = found.start() if found else len(content)
            _count(scans, scans.frame, segment, content[at : scans.end])
            at = scans.end
    return scans


def _frame(process: int, segment: bytes) -> Frame | None:
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5] or not segment[5]:
        return None
    height, width = struct.unpack(">HH", segment[1:5])
    parts = [segment[6 + 3 * i : 9 + 3 * i] for i in range(segment[5])]
    sampling = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
    sound = width and height and all(x and y for x, y in sampling.values()) and len(sampling) == len(parts)
    return Frame(process, width, height, sampling) if sound else None


def _count(scans: Scans, frame: Frame, segment: bytes, data: bytes) -> None:
    scans.count += 1
    if scans.count > MAX_SCANS:
        raise ImageError(f"the JPEG has more than {MAX_SCANS} scans; save it again")
    count = segment[0] if segment else 0
    components = list(segment[1 : 1 + 2 * count : 2])
    if not components or len(segment) < 4 + 2 * count or not set(components) <= set(frame.sampling):
        return  # libjpeg says what is wrong
    first, last, approximation = segment[1 + 2 * count : 4 + 2 * count]
    first, last, low = (first, last, approximation & 15) if frame.process == PROGRESSIVE else (0, 63, 0)
    for component in components:
        scans.missing[component][first : last + 1] = [low] * (min(last, 63) - first + 1)
    if first:
        return
    bits = 2 if frame.process in SEQUENTIAL else int(frame.process == PROGRESSIVE)
    if 8 * (len(data) - data.count(b"\xff\x00")) < bits * frame.blocks(components):
        raise ended_early(frame)


def _up(number: int, by: int) -> int:
    return -(-number // by)
