"""Hostile input: every good image is scored, everything else is recorded with a reason that names the cause."""

import contextlib
import dataclasses
import importlib
import io
import os
import resource
import struct
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from jobs_shared import Silent, failures, table, tiny_encoder
from PIL import Image

import jepa_jax as jj
from jepa_jax.images.sources.records import read_file
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.failure_limit import FailureLimit

RNG = np.random.default_rng(0)
PICTURE = Image.fromarray(RNG.integers(0, 256, (60, 80, 3), np.uint8))


def encoded(suffix: str, picture: Image.Image = PICTURE, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, suffix, **options)
    return stream.getvalue()


def exif(**tags) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = tags["orientation"]
    return found


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int) -> bytes:
    """A few bytes that claim to be a picture of any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def good_files() -> dict[str, bytes]:
    """Odd, but pictures."""
    sixteen = Image.fromarray(np.linspace(0, 65535, 4800).reshape(60, 80).astype(np.uint16))
    frames = [PICTURE, PICTURE.rotate(90), PICTURE.rotate(180)]
    gif = encoded("GIF", save_all=True, append_images=frames[1:])
    return {
        "plain.jpg": encoded("JPEG"),
        "mislabelled-png.jpg": encoded("PNG"),
        "mislabelled-webp.png": encoded("WEBP"),
        "one-pixel.png": encoded("PNG", PICTURE.crop((0, 0, 1, 1))),
        "animated.gif": gif,
        "animated.webp": encoded("WEBP", save_all=True, append_images=frames[1:]),
        "cmyk.jpg": encoded("JPEG", PICTURE.convert("CMYK")),
        "grey.jpg": encoded("JPEG", PICTURE.convert("L")),
        "sixteen-bits.png": encoded("PNG", sixteen),
        "one-bit.png": encoded("PNG", PICTURE.convert("1")),
        "palette.png": encoded("PNG", PICTURE.convert("P")),
        "transparent.png": encoded("PNG", PICTURE.convert("RGBA")),
        "mirrored-exif.jpg": encoded("JPEG", exif=exif(orientation=7)),
        "impossible-exif.jpg": encoded("JPEG", exif=exif(orientation=99)),
        "damaged-exif.jpg": encoded("JPEG", exif=b"Exif\x00\x00" + b"\xff" * 40),
        "trailing-bytes.png": encoded("PNG") + b"and more" * 100,
        "UPPER.JPEG": encoded("JPEG"),
        "name with spaces, 'quotes' and\nnewline.png": encoded("PNG"),
        "écran-画像.png": encoded("PNG"),
    }


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Content and what its reason must say."""
    png, jpeg = encoded("PNG"), encoded("JPEG")
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0xFF
    floating = Image.fromarray(RNG.random((20, 20)).astype(np.float32))
    return {
        "truncated.png": (png[: len(png) // 2], "cannot be decoded"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "cannot be decoded"),
        "damaged.png": (bytes(damaged), "cannot be decoded"),
        "zero-bytes.jpg": (b"", "empty"),
        "text.png": (b"<html>404</html>", "no known image format"),
        "noise.jpg": (RNG.bytes(3000), "no known image format"),
        "only-zeros.tif": (bytes(3000), "no known image format"),
        "header-only.jpg": (jpeg[:4], "no known image format"),
        "bomb.png": (png_claiming(30_000, 30_000), "900000000 pixels|30000 x 30000"),
        "large-bomb.png": (png_claiming(9_500, 9_500), "90250000 pixels|9500 x 9500"),
        "no-width.png": (png_claiming(0, 100), "0|format"),
        "thread.png": (encoded("PNG", Image.new("L", (1, 30_000))), "too elongated"),
        "floating.tif": (encoded("TIFF", floating), "range is unknown"),
        "postscript.jpg": (encoded("EPS"), "no known image format"),
    }


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read everything; needs nothing where the tests run as a user."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everyone can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_hostile_folder(workers: int, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    good, bad = good_files(), bad_files()
    for name, content in good.items():
        (folder / name).write_bytes(content)
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    with open(bytes(folder) + b"/not-utf8-\xff\xfe.png", "wb") as stream:
        stream.write(encoded("PNG"))
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    (folder / "linked.png").symlink_to(folder / "plain.jpg")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    (folder / "notes.txt").write_text("no picture, and does not claim to be one")

    source = open_source(folder)
    run_job(tiny_encoder(), source, tmp_path / "out", Silent(), JobOptions(batch_size=8, workers=workers))

    wanted = {*(name.replace("\n", "\\n") for name in good), "not-utf8-\\xff\\xfe.png", "linked.png"}
    assert set(table(tmp_path / "out")["key"].to_pylist()) == wanted
    reasons = {name: reason for name, (_, reason) in bad.items()}
    reasons |= {
        "dangling.png": "cannot be read: No such file",
        "itself.png": "cannot be read: Too many levels",
        "loop": "linked folder is not entered",
        "pipe.jpg": "no regular file",
        "device.jpg": "no regular file",
    }
    found = failures(tmp_path / "out")
    assert found.keys() == reasons.keys()
    for key, reason in reasons.items():
        assert any(part in found[key] for part in reason.split("|")), (key, found[key])
    assert source.left_out == 1
    assert len(wanted) + len(reasons) + source.left_out >= 25


def test_deep_folders_and_names_of_several_lines(tmp_path: Path):
    at, name = os.open(tmp_path, os.O_RDONLY), "d"
    for _ in range(1500):  # deeper than a path may be long, and than Python calls itself
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    (tmp_path / "two\nlines.png").write_bytes(encoded("PNG"))
    source = open_source(tmp_path)
    (good,) = (i for i, key in enumerate(source.keys) if key.endswith("lines.png"))
    assert source.keys[good] == "two\\nlines.png"
    assert source.read(good) == encoded("PNG")
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # Python's own way there calls itself


def test_unreadable_files_and_folders(open_folder: Path):
    for name in ("good.png", "secret.png", "closed/inside.png"):
        (open_folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (open_folder / "in" / name).write_bytes(encoded("PNG"))
    importlib.import_module("scipy.linalg")  # JAX's compiler wants it, and nobody may not be able to read it
    (open_folder / "in" / "secret.png").chmod(0)
    (open_folder / "in" / "closed").chmod(0)
    try:
        with as_nobody():
            source = open_source(open_folder / "in")
            run_job(tiny_encoder(), source, open_folder / "out", Silent(), JobOptions(batch_size=8))
    finally:
        (open_folder / "in" / "closed").chmod(0o700)
    assert table(open_folder / "out")["key"].to_pylist() == ["good.png"]
    found = failures(open_folder / "out")
    assert found == {
        "closed/": "the folder cannot be listed: Permission denied",
        "secret.png": "it cannot be read: Permission denied",
    }


def test_a_machine_without_file_handles_is_not_the_images_fault(tmp_path: Path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encoded("PNG"))
    source, options = open_source(tmp_path), JobOptions(batch_size=8)

    def reader(path: str) -> bytes:
        """Of one file, while this process may open none."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        if path.endswith("1.png"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            return read_file(path)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    exhausted = dataclasses.replace(source, reader=reader)
    with pytest.raises(jj.JobError, match=r"'1.png': it cannot be read: Too many open files. No image is to blame"):
        run_job(tiny_encoder(), exhausted, tmp_path / "out", Silent(), options)
    assert run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options).failed == 0


def test_a_hostile_tar(tmp_path: Path):
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:

        def add(name: str, content: bytes = b"", **facts) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for fact, value in facts.items():
                setattr(info, fact, value)
            tar.addfile(info, io.BytesIO(content))

        add("good.png", encoded("PNG"))
        add("../../climbs/out.png", encoded("PNG"))
        add("/absolute.png", encoded("PNG"))
        add("twice.png", encoded("PNG"))
        add("twice.png", encoded("PNG"))
        add("soft.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("hard.png", type=tarfile.LNKTYPE, linkname="good.png")
        add("pipe.png", type=tarfile.FIFOTYPE)
        add("zero.png")
        add("caption.txt", b"left out")
        add("cut.png", encoded("PNG"))
    whole = path.read_bytes()
    last = whole.index(b"cut.png")
    path.write_bytes(whole[: last + 512 + 300])

    source = open_source(path)
    run_job(tiny_encoder(), source, tmp_path / "out", Silent(), JobOptions(batch_size=8))

    assert table(tmp_path / "out")["key"].to_pylist() == ["good", "twice"]
    found = failures(tmp_path / "out")
    for key, reason in {
        "../../climbs/out": "leads out of the archive",
        "/absolute": "leads out of the archive",
        "twice#2": "duplicate key",
        "soft": "a link to '/etc/passwd'",
        "hard": "a link to 'good.png'",
        "pipe": "no regular file",
        "zero": "empty",
        "cut": "ends within this record",
    }.items():
        assert reason in found.pop(key)
    assert all("archive is damaged" in reason for reason in found.values()), found
    assert source.left_out == 1


def test_a_list_with_holes_and_repetitions(tmp_path: Path):
    (tmp_path / "good.png").write_bytes(encoded("PNG"))
    outside = os.path.relpath("/etc/passwd", tmp_path)
    (tmp_path / "list.csv").write_text(f"path,label\ngood.png,1\ngood.png,2\nmissing.png,3\n,4\n{outside},5\n")
    run_job(tiny_encoder(), open_source(tmp_path / "list.csv"), tmp_path / "out", Silent(), JobOptions(batch_size=8))
    assert table(tmp_path / "out")["key"].to_pylist() == ["good.png"]
    found = failures(tmp_path / "out")
    assert found == {
        "good.png#2": "duplicate key: 'good.png' is in the input before",
        "missing.png": "it cannot be read: No such file or directory",
        "row 3": "the list has no path in this row",
        outside: "the content is no known image format",
    }


def test_a_job_that_is_mostly_broken_gives_up(tmp_path: Path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(b"broken")
    (tmp_path / "good.png").write_bytes(encoded("PNG"))
    source = open_source(tmp_path)
    with pytest.raises(jj.JobError, match="4 of the 4 records tried have failed, and max_failures allows 3"):
        run_job(tiny_encoder(), source, tmp_path / "out", Silent(), JobOptions(batch_size=8, max_failures="3"))
    with pytest.raises(jj.JobError, match=r"the last reason: shrink it\. Whole parts"):  # one full stop
        FailureLimit.parse("0").check(1, 1, "shrink it.")
    options = JobOptions(batch_size=8, max_failures="8")
    assert run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options).failed == 8
    # A share is too early to tell among so few; in the end it is not.
    with pytest.raises(jj.JobError, match=r"8 of all 9 records have failed, and max_failures allows 0\.5 of them"):
        run_job(tiny_encoder(), source, tmp_path / "share", Silent(), JobOptions(batch_size=8, max_failures="50%"))
    (tmp_path / "1.png").write_bytes(encoded("PNG"))
    for i in range(2, 8):
        (tmp_path / f"{i}.png").unlink()
    source = open_source(tmp_path)
    options = JobOptions(batch_size=8, max_failures="50%")
    assert run_job(tiny_encoder(), source, tmp_path / "mended", Silent(), options).failed == 1
    for text in ("-1", "150%", "many"):
        with pytest.raises(jj.ArgumentError, match="max_failures"):
            JobOptions(max_failures=text)


def test_failures_can_be_tried_again(tmp_path: Path):
    for i in range(20):
        (tmp_path / f"{i:02d}.png").write_bytes(encoded("PNG") if i != 11 else b"")
    source, options = open_source(tmp_path), JobOptions(batch_size=8, shard_size=8)
    assert run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options).failed == 1
    (tmp_path / "11.png").write_bytes(encoded("PNG"))
    assert run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options).failed == 1
    watcher, again = Silent(), JobOptions(batch_size=8, shard_size=8, retry_failed=True)
    assert run_job(tiny_encoder(), source, tmp_path / "out", watcher, again).failed == 0
    assert [report.shard for report in watcher.reports] == [1]


def test_records_that_vanish_between_two_runs_do_not_stop_a_job(tmp_path: Path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encoded("PNG"))
    first = open_source(tmp_path)
    (tmp_path / "1.png").unlink()
    (tmp_path / "0.png").write_bytes(b"")  # its shard fails, and the job is resumed below
    options = JobOptions(batch_size=8, shard_size=1)
    assert run_job(tiny_encoder(), first, tmp_path / "out", Silent(), options).failed == 2
    assert "cannot be read" in failures(tmp_path / "out")["1.png"]
    (tmp_path / "0.png").write_bytes(encoded("PNG"))
    again = JobOptions(batch_size=8, shard_size=1, retry_failed=True)
    run_job(tiny_encoder(), open_source(tmp_path), tmp_path / "out", Silent(), again)
    assert "has vanished since" in failures(tmp_path / "out").pop("1.png")
    assert table(tmp_path / "out")["key"].to_pylist() == ["0.png", "2.png"]
    (tmp_path / "new.png").write_bytes(encoded("PNG"))
    with pytest.raises(jj.JobError, match=r"1 \(such as 'new.png'\) new, 1 \(such as '1.png'\) vanished"):
        run_job(tiny_encoder(), open_source(tmp_path), tmp_path / "out", Silent(), options)


def test_an_input_that_vanishes_as_a_whole_is_no_failure_of_its_images(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(encoded("PNG"))
    source = open_source(folder)
    folder.rename(tmp_path / "elsewhere")
    options = JobOptions(batch_size=8, shard_size=1)
    with pytest.raises(jj.JobError, match=r"has vanished\. Bring it back"):
        run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options)
    (tmp_path / "elsewhere").rename(folder)
    assert run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options).scored == 3
