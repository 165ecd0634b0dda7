"""What one record may cost: time, scans, memory; and whose fault it is when that is too much."""

import errno
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from picture_kinds import chunk, levels, palette_of, png, tiff
from PIL import Image

from jepa_jax.errors import ImageError
from jepa_jax.images import InputRecipe, PreprocessSpec, Records
from jepa_jax.images.decoding import MAX_PIXELS, decode, decode_record, open_encoded
from jepa_jax.images.jpeg_scans import MAX_SCANS
from jepa_jax.images.pipeline import decode_ahead
from jepa_jax.images.preprocessing import to_rgb

RECIPE = InputRecipe(PreprocessSpec(16, 12))


def picture(size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(format: str, image: Image.Image | None = None, **options) -> bytes:
    stream = io.BytesIO()
    (image or picture()).save(stream, format, **options)
    return stream.getvalue()


def reason(content: bytes) -> str:
    """Why it is refused."""
    with pytest.raises(ImageError) as caught:
        decode(content, "key", RECIPE)
    return str(caught.value)


# Time. Records are programs here, and `eval` their reader: it is picklable, and does what it is told.

SOUND = f"{encoded('PNG')!r}"


def records(programs: list[str]) -> Records:
    return Records("programs", [str(i) for i in range(len(programs))], programs, eval)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_record_that_never_ends_is_given_up_and_no_other_is_lost(workers: int, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    programs = [SOUND] * 30
    programs[3] = f"open({str(tmp_path / 'pipe')!r}, 'rb').read()"
    programs[4] = programs[29] = "__import__('time').sleep(100)"
    began = time.monotonic()
    found = list(decode_ahead(records(programs), range(30), RECIPE, workers=workers, ahead=16, record_seconds=1.5))
    assert time.monotonic() - began < 60  # and not 100
    assert [record.index for record in found] == list(range(30))
    assert [record.index for record in found if record.inputs is None] == [3, 4, 29]
    for record in found:
        if record.inputs is None:
            assert record.reason == "it took more than 1.5 s to be read and decoded"
            assert not record.no_fault_of_its_own
        else:
            np.testing.assert_array_equal(record.inputs, found[0].inputs)


def test_others_decode_while_one_takes_its_time(tmp_path: Path):
    """They leave a mark each before the slow one, which waits for the last of them, has answered."""
    marks = [tmp_path / f"{i}" for i in range(40)]
    programs = [f"(open({str(mark)!r}, 'w').close(), {SOUND})[1]" for mark in marks]
    there = f"lambda: __import__('os').path.exists({str(marks[39])!r})"
    programs[0] = f"([__import__('time').sleep(0.02) for _ in iter({there}, True)], {SOUND})[1]"
    found = list(decode_ahead(records(programs), range(40), RECIPE, workers=2, ahead=48, record_seconds=30))
    assert all(record.inputs is not None for record in found)
    assert len(found) == 40


def test_a_decoder_that_crashes_costs_its_record_alone():
    programs = [SOUND] * 12
    programs[5] = "__import__('os').abort()"
    found = list(decode_ahead(records(programs), range(12), RECIPE, workers=1, ahead=8))
    assert [record.index for record in found if record.inputs is None] == [5]
    assert found[5].reason == "its decoder crashed (SIGABRT)"


@pytest.mark.parametrize("workers", [0, 1])
def test_stopping_does_not_wait_for_a_record_that_hangs(workers: int):
    programs = ["__import__('time').sleep(100)"] * 30
    began = time.monotonic()
    stream = decode_ahead(records(programs), range(30), RECIPE, workers=workers, ahead=1, record_seconds=0.5)
    assert next(stream).reason.startswith("it took more than 0.5 s")  # the first eight are; more are begun meanwhile
    stream.close()
    assert time.monotonic() - began < 60


# Scans


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there many times over."""
    content = encoded("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + b"\xff\xd9"


def test_a_jpeg_of_very_many_scans_is_refused_unread():
    few = open_encoded(with_scans(100))
    assert to_rgb(few).size == (64, 48)
    began = time.monotonic()
    assert reason(with_scans(20_000)) == f"the JPEG has more than {MAX_SCANS} scans; save it again"
    assert time.monotonic() - began < 5


# Data that end early


def claiming(content: bytes, width: int, height: int) -> bytes:
    """A JPEG with another size in its header."""
    at = next(i for i in (content.find(b"\xff" + bytes([kind])) for kind in (0xC0, 0xC2)) if i > 0)
    return content[: at + 5] + struct.pack(">HH", height, width) + content[at + 9 :]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_that_holds_less_than_its_header_says_is_refused(mode: str, subsampling: int, progressive: bool):
    small = encoded("JPEG", picture().convert(mode), subsampling=subsampling, progressive=progressive)
    assert decode(small, "key", RECIPE).shape == (1, 12, 12, 3)
    for size in ((9400, 9400), (640, 4800)):
        assert "end early" in reason(claiming(small, *size)) or "truncated" in reason(claiming(small, *size))


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 3}, {"subsampling": 2}])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_sequential_jpeg_with_a_mark_of_its_end_too_early_is_refused(share: float, options: dict):
    content = encoded("JPEG", **options)
    begin = content.index(b"\xff\xda")
    cut = begin + int((len(content) - begin) * share)
    assert decode(content, "key", RECIPE).shape == (1, 12, 12, 3)
    assert reason(content[:cut] + b"\xff\xd9")


def test_a_jpeg_that_a_user_opened_is_held_to_the_same(tmp_path: Path):
    """Whether Pillow has opened the file itself or was given a stream."""
    content = encoded("JPEG")
    for number, damaged in enumerate((claiming(content, 9400, 9400), content[: len(content) // 2] + b"\xff\xd9")):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(damaged)
        for opened in (path, io.BytesIO(damaged)):
            with Image.open(opened) as image, pytest.raises(ImageError):
                to_rgb(image)
    path = tmp_path / "sound.jpg"
    path.write_bytes(content)
    image = Image.open(path)  # never closed by us: decoding does
    found = np.asarray(to_rgb(image))
    with Image.open(io.BytesIO(content)) as theirs:
        np.testing.assert_array_equal(found, np.asarray(theirs))
    np.testing.assert_array_equal(found, np.asarray(to_rgb(image)))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 8), (17, 31), (64, 64), (333, 250)])
@pytest.mark.parametrize("colour", ["noise", "white"])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 1},
        {"quality": 100},
        {"progressive": True},
        {"optimize": True, "subsampling": 2},
        {"restart_marker_rows": 1},
    ],
)
def test_no_sound_jpeg_is_refused_or_changed(size: tuple[int, int], colour: str, options: dict):
    image = picture(size) if colour == "noise" else Image.new("RGB", size, "white")
    for mode in ("L", "RGB", "CMYK"):
        content = encoded("JPEG", image.convert(mode), **options)
        for behind in (b"", b"appended", content):
            with open_encoded(content + behind) as ours, Image.open(io.BytesIO(content)) as theirs:
                np.testing.assert_array_equal(np.asarray(to_rgb(ours)), np.asarray(theirs.convert("RGB")))


def test_a_progressive_jpeg_that_was_cut_and_closed_again_is_refused():
    """Up to its last scan, which brings the lowest bits alone."""
    content = encoded("JPEG", progressive=True)
    first, last = content.index(b"\xff\xda"), content.rindex(b"\xff\xda")
    for cut in range(first, last, (last - first) // 20):
        assert reason(content[:cut] + b"\xff\xd9")


def test_a_jpeg_that_was_never_filled_up_is_refused():
    content = encoded("JPEG")
    assert "end early" in reason(content[: len(content) * 6 // 10] + bytes(len(content) * 4 // 10))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("bits", "colour", "channels"), [(1, 0, 1), (8, 0, 1), (8, 2, 3), (8, 3, 1), (16, 6, 4)])
def test_a_png_whose_data_end_early_is_refused(bits: int, colour: int, channels: int, interlaced: bool):
    values = np.random.default_rng(0).integers(1, 2, (16, 16, channels)) * (2**bits - 1)
    extra = chunk(b"PLTE", palette_of(256).tobytes()) if colour == 3 else b""
    sound = png(values, bits, colour, extra)
    black = png(values * 0, bits, colour, extra)
    assert decode(sound, "key", RECIPE).shape == decode(black, "key", RECIPE).shape == (1, 12, 12, 3)
    at = sound.index(b"IHDR")
    if interlaced:  # the seven passes have more rows than the picture, and each begins with a byte of its own
        short = black[: at - 4] + chunk(b"IHDR", black[at + 4 : at + 16] + b"\1") + black[at + 21 :]
    else:
        header = sound[at + 4 : at + 8] + struct.pack(">I", 40) + sound[at + 12 : at + 17]
        short = sound[: at - 4] + chunk(b"IHDR", header) + sound[at + 21 :]
    assert "end before the picture does" in reason(short) or (interlaced and "truncated" in reason(short))


def test_a_tiff_without_all_of_its_strips_is_refused():
    values, _ = levels(3, 255)
    for planar in (False, True):
        assert decode(tiff(values, 8, 2, planar=planar), "key", RECIPE).shape == (1, 12, 12, 3)
        for tags in ({257: ("I", (40,))}, {278: ("I", (6,))}):
            assert "does not hold data for all" in reason(tiff(values, 8, 2, planar=planar, tags=tags))


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "TGA", "JPEG2000", "PPM", "JPEG"])
def test_a_file_that_was_cut_has_a_reason(format: str):
    content = encoded(format)
    for share in (0.2, 0.5, 0.9):
        assert reason(content[: int(len(content) * share)])


# Memory, and the machine's other faults


def test_memory_that_runs_out_is_the_machines_fault(tmp_path: Path):
    Image.new("LA", (9000, 9000)).save(tmp_path / "large.png", compress_level=1)
    program = f"""if True:
        import json, resource
        from jepa_jax.images import InputRecipe, PreprocessSpec
        from jepa_jax.images.decoding import decode_record
        from jepa_jax.images.sources.records import read_file
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
        found = decode_record(0, "a", {str(tmp_path / "large.png")!r}, read_file, InputRecipe(PreprocessSpec(16, 12)))
        print(json.dumps([found.reason, found.no_fault_of_its_own, found.unreadable]))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words, blameless, unreadable = json.loads(done.stdout)
    assert words.startswith("out of memory while decoding: the image has 9000 x 9000 pixels")
    assert blameless
    assert not unreadable


def test_a_file_that_asks_for_more_than_its_size_takes_is_its_own_fault():
    class Greedy(InputRecipe):
        def inputs(self, image, key):
            raise MemoryError

    with pytest.raises(ImageError, match="asks for more memory than its 64 x 48 pixels take"):
        decode(encoded("PNG"), "key", Greedy(RECIPE.preprocess))


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "TIFF", "BMP", "TGA", "JPEG2000", "PPM", "JPEG"])
def test_too_many_pixels_are_named_whatever_the_format(format: str):
    side = 9500
    written = (side, side) if format in ("GIF", "WEBP", "JPEG") else (60, 50)
    content = bytearray(encoded(format, Image.new("L", written)))
    if format == "PNG":
        content[8:33] = chunk(b"IHDR", struct.pack(">II", side, side) + content[24:29])
    elif format == "TIFF":
        content = bytearray(tiff(levels(1, 255)[0], 8, 1, tags={256: ("I", (side,)), 257: ("I", (side,))}))
    elif format == "BMP":
        content[18:26] = struct.pack("<II", side, side)
    elif format == "TGA":
        content[12:16] = struct.pack("<HH", side, side)
    elif format == "JPEG2000":
        for marker, order in ((b"ihdr", ">II"), (b"\xff\x51", None)):
            at = content.index(marker)
            at += 4 if order else 6
            content[at : at + 8] = struct.pack(">II", side, side)
    elif format == "PPM":
        content = bytearray(f"P5 {side} {side} 255\n".encode())
    assert side * side > MAX_PIXELS
    assert f"{side} x {side}" in reason(bytes(content)) or "too large" in reason(bytes(content))


def failing(error: BaseException):
    def reader(locator: object) -> bytes:
        raise error

    return reader


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        OSError(errno.ECONNREFUSED, "Connection refused"),
        OSError(errno.ECONNRESET, "Connection reset by peer"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.ENETDOWN, "Network is down"),
        ConnectionError("away"),
        TimeoutError(),
        socket.gaierror(-3, "Temporary failure in name resolution"),
        ImportError("Please install gcsfs to access Google Storage"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__ + str(getattr(error, "errno", "")),
)
def test_the_machines_faults_are_no_images(error: BaseException):
    wrapped = RuntimeError("the library gave up")
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        found = decode_record(0, "a", "a", failing(raised), RECIPE)
        assert found.no_fault_of_its_own
        assert found.reason.strip(": ")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory"),
        PermissionError(13, "Permission denied"),
        ValueError(),
        KeyError("a"),
    ],
)
def test_a_files_own_faults_stay_its_own(error: Exception):
    found = decode_record(0, "a", "a", failing(error), RECIPE)
    assert not found.no_fault_of_its_own
    assert found.unreadable
    assert not found.reason.rstrip().endswith(":")
