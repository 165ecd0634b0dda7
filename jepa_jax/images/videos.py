"""From a video to a clip: some of its frames, decoded by PyAV (FFmpeg's libraries).

A clip has every ``frame_step``-th frame of a video, from the first on, ``frames`` of them: those of V-JEPA 2's own
demonstration, 0, 2, ... 126. Its processor, and `transformers`' ``VJEPA2VideoProcessor``, choose none; they prepare
each frame as a picture is prepared: resize, cut the middle, normalise. So it is done here, frame after frame, and only
the frames of the clip are kept: a film takes no more memory than a second of it.

Frames are counted as they are shown. Nothing is read behind the last one that is wanted: what is broken there is not
seen. A video that ends before is refused, and so is one in which a decoder finds a fault, rather than filling up or
concealing what is missing, as players do: a score of such a clip would say nothing of the video.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image

from jepa_jax.errors import ImageError
from jepa_jax.images.preprocessing import preprocess_rgb
from jepa_jax.images.reasons import sentence
from jepa_jax.images.recipe import PreprocessSpec
from jepa_jax.images.sources.remote import read_remote, scheme_of, size_of
from jepa_jax.paths import store_of, to_path

UNKNOWN = "the content is no known video format"

STRICT = {"err_detect": "crccheck+explode"}
"""What a decoder is told: to give up where it finds a fault."""

MAX_PIXELS = 89_478_485
"""Of a frame, as of a picture."""

BYTES_PER_PIXEL = 16
"""What decoding takes at most, for each of some frames that a decoder keeps."""

KEPT_FRAMES = 20
"""Frames that a decoder keeps, at most: what later ones refer to."""


@dataclass(frozen=True)
class VideoFile:
    """A video that is not read yet, since it may be larger than memory: a path, or a URL.

    Attributes:
        path: the file's.
        part: (offset, bytes) of the video in it, where the file is an archive.
    """

    path: str
    part: tuple[int, int] | None = None

    def size(self) -> int | None:
        """Its bytes, where that is known without reading it."""
        if self.part is not None:
            return self.part[1]
        return size_of(self.path) if scheme_of(self.path) else os.path.getsize(self.path)

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The video, to read and to seek in."""
        with self._file() as file:
            yield file if self.part is None else cast("BinaryIO", _Part(file, *self.part))

    @contextlib.contextmanager
    def _file(self) -> Iterator[BinaryIO]:
        if scheme_of(self.path) in ("http", "https"):
            yield io.BytesIO(read_remote(self.path))  # servers need not answer for parts of a file
        elif scheme_of(self.path):
            store, name = store_of(to_path(self.path))
            with store.open(name, "rb") as stream:
                yield stream
        else:
            with open(self.path, "rb") as stream:
                yield stream


class _Part(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int):
        self._file, self._offset, self._size = file, offset, size
        self.seek(0)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self.tell())
        wanted = left if size < 0 else min(size, left)
        data = self._file.read(wanted)
        if wanted and not data:
            raise ImageError(f"the archive ends within this record of {self._size} bytes")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = (0, self.tell(), self._size)[whence]
        return self._file.seek(self._offset + max(0, origin + offset)) - self._offset

    def tell(self) -> int:
        return self._file.tell() - self._offset


def container_of(start: bytes) -> str | None:
    """FFmpeg's name of the container that begins so; None of any other.

    FFmpeg itself knows hundreds, and among them playlists, which have it open other files.
    """
    if start[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"  # WebM too
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return "avi"
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return "mov"  # MP4 too
    return None


def read_clip(content: VideoFile | bytes, spec: PreprocessSpec) -> np.ndarray:
    """The clip of a video, as an encoder wants it.

    Args:
        content: the video.
        spec: the encoder's recipe, with ``frames``.

    Returns:
        float32 [frames, crop, crop, 3], normalised.

    Raises:
        ImageError: it cannot be used; the message is the reason that a job records.
        MemoryError: this machine has less memory than frames of this size take.
        OSError: it cannot be read.
    """
    assert spec.frames is not None
    clip = np.empty(spec.shape, np.float32)
    for i, frame in enumerate(frames_of(content, range(0, spec.frames_needed, spec.frame_step))):
        clip[i] = preprocess_rgb(frame, spec)
    return clip


def frames_of(content: VideoFile | bytes, wanted: Sequence[int]) -> Iterator[Image.Image]:
    """Some frames of a video, upright and in RGB.

    Args:
        content: the video.
        wanted: their numbers from 0, ascending.

    Raises:
        ImageError, MemoryError, OSError: see `read_clip`.
    """
    size = (0, 0)
    with contextlib.ExitStack() as opened:
        stream = _Watched(
            io.BytesIO(content) if isinstance(content, bytes) else opened.enter_context(content.opened())
        )
        try:
            container = opened.enter_context(_container(stream))
            video = _video_stream(container)
            size = video.codec_context.width, video.codec_context.height
            _require_size(*size)  # known from the header: nothing is decompressed yet
            yield from _chosen(container, video, wanted)
        except Exception as error:  # what FFmpeg makes of damaged files is no closed set
            if stream.fault is not None:
                raise stream.fault from error
            if isinstance(error, MemoryError):
                raise _short_of_memory(size) from error
            if isinstance(error, ImageError) or not _of_ffmpeg(error):
                raise
            raise ImageError(f"the video cannot be decoded: {_said(error)}") from error


class _Watched:
    """A file as FFmpeg reads it, to which an error is an end: it is kept, since the video is not to blame."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.fault: Exception | None = None

    def read(self, size: int) -> bytes:
        """Some bytes; none after a fault."""
        try:
            return b"" if self.fault else self._stream.read(size)
        except Exception as error:
            self.fault = error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._stream.tell()


def _container(stream: _Watched) -> Any:
    import av
    from av.error import InvalidDataError

    start = stream.read(12)
    if not start:
        raise ImageError("the file is empty")
    stream.seek(0)
    kind = container_of(start)
    if kind is None:
        raise ImageError(UNKNOWN)
    try:
        return av.open(stream, format=kind, metadata_errors="replace")
    except InvalidDataError as error:
        raise ImageError("the video's index is missing or damaged; the file may be incomplete") from error


def _video_stream(container: Any) -> Any:
    """The first that moves: a cover of a song is a stream of one picture."""
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        held = f"; it holds {len(container.streams.audio)} of sound" if container.streams.audio else ""
        raise ImageError(f"the file has no video stream{held}")
    video = streams[0]
    if video.codec_context is None:
        raise ImageError("the video has a codec that is not known here")
    video.codec_context.options = STRICT
    video.codec_context.thread_count = 1  # decoding is shared out among processes
    return video


def _chosen(container: Any, video: Any, wanted: Sequence[int]) -> Iterator[Image.Image]:
    number, left = 0, iter(wanted)
    next_one = next(left, None)
    for packet in container.demux(video):
        if next_one is None:
            return
        if packet.is_corrupt:
            raise ImageError(f"the video breaks off or is damaged near frame {number}")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ImageError(f"the video is damaged at frame {number}")
            if number == next_one:
                yield _upright(frame)
                next_one = next(left, None)
                if next_one is None:
                    return
            number += 1
    if next_one is not None:
        raise ImageError(_too_short(number, _frames_told(container, video), wanted))


def _frames_told(container: Any, video: Any) -> int:
    """How many there are by the header, or a little fewer; 0 where it says nothing."""
    if video.frames or not container.duration or not video.average_rate:
        return video.frames
    return int(0.9 * container.duration / 1e6 * video.average_rate)


def _too_short(found: int, told: int, wanted: Sequence[int]) -> str:
    if found < told:
        return f"the video breaks off after {found} frames, and has {told} or more by its header"
    step = f", {wanted[1] - wanted[0]} apart," if len(wanted) > 1 and wanted[1] - wanted[0] > 1 else ""
    return (
        f"the video is too short: it has {found} frames, and a clip of {len(wanted)} frames{step} needs "
        f"{wanted[-1] + 1}; give fewer frames or a smaller frame_step"
    )


def _upright(frame: Any) -> Image.Image:
    _require_size(frame.width, frame.height)
    pixels = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90)  # anticlockwise; other angles than right ones are no camera's
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, quarters)))


def _require_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"the video has {width} x {height} pixels, over the limit of {MAX_PIXELS}; shrink it")


def _short_of_memory(size: tuple[int, int]) -> Exception:
    """Whose fault it is that memory ran out, as `jepa_jax.images.decoding` tells it of pictures."""
    width, height = size
    try:
        bytearray(KEPT_FRAMES * BYTES_PER_PIXEL * width * height)
    except MemoryError:
        return MemoryError(f"frames of {width} x {height} pixels, of which a decoder keeps up to {KEPT_FRAMES}")
    return ImageError(f"the video cannot be decoded: it asks for more memory than frames of {width} x {height} take")


def _of_ffmpeg(error: BaseException) -> bool:
    """Whether FFmpeg says so: of the content, since it touches no disk itself. Of a damaged Matroska file it says
    "Input/output error".

    PyAV has plain errors as well: a stream or plane that a file does not have (IndexError), numbers out of range
    (ValueError), and formats of pixels that it cannot convert (NotImplementedError).
    """
    from av.error import FFmpegError

    return isinstance(error, FFmpegError | IndexError | ValueError | NotImplementedError)


def _said(error: BaseException) -> str:
    """FFmpeg's words, without its number and the call's name."""
    return sentence(Exception(getattr(error, "strerror", None) or str(error) or type(error).__name__))
