"""Short videos, written by PyAV: real containers and codecs."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np

KINDS: dict[str, tuple[str, str, str]] = {
    "mp4": ("mp4", "libx264", "yuv420p"),
    "part2.mp4": ("mp4", "mpeg4", "yuv420p"),
    "mov": ("mov", "mjpeg", "yuvj420p"),
    "webm": ("webm", "libvpx-vp9", "yuv420p"),
    "vp8.webm": ("webm", "libvpx", "yuv420p"),
    "mkv": ("matroska", "ffv1", "yuv420p"),
    "h264.mkv": ("matroska", "libx264", "yuv444p"),
    "avi": ("avi", "mpeg4", "yuv420p"),
    "huffyuv.avi": ("avi", "huffyuv", "yuv422p"),
    "rgb.mkv": ("matroska", "ffv1", "bgr0"),
}
"""By the end of a file's name: container, codec, pixel format."""


def frames(count: int = 20, height: int = 36, width: int = 48, seed: int = 0) -> np.ndarray:
    """A smooth picture that moves, uint8 [count, height, width, 3]; each frame is another one."""
    rng = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 2 * np.pi, height)[:, None, None], np.linspace(0, 2 * np.pi, width)[None, :, None]
    waves, phases = rng.uniform(0.5, 2.0, (2, 3)), rng.uniform(0, 6, 3)
    pictures = [
        127 + 90 * np.sin(waves[0] * rows + waves[1] * columns + phases + 0.35 * time) for time in range(count)
    ]
    return np.stack(pictures).astype(np.uint8)


def video(kind: str, pictures: np.ndarray, *, sound: bool = False) -> bytes:
    """A video of pictures [T, H, W, 3]."""
    container, codec, pixels = KINDS[kind]
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
        heard = _sound(output) if sound else None
        for picture in pictures:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
        if heard is not None:
            _hear(output, heard)
    return sink.getvalue()


def sound(container: str = "mp4") -> bytes:
    """A file with sound alone."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as output:
        _hear(output, _sound(output))
    return sink.getvalue()


def _sound(output: Any) -> Any:
    return output.add_stream("aac", rate=16000, layout="mono")


def _hear(output: Any, stream: Any) -> None:
    for start in range(0, 8192, 1024):
        wave = np.sin(np.arange(start, start + 1024) / 5).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        output.mux(stream.encode(frame))
    output.mux(stream.encode())
