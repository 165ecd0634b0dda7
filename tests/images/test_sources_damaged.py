"""Damaged and hostile inputs: what a library raises, whatever it is, becomes one sentence with the input's name."""

import errno
import io
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_shared import Silent, failures, table, tiny_encoder
from PIL import Image

import jepa_jax as jj
from jepa_jax.errors import ImageError, JobError
from jepa_jax.images import open_source
from jepa_jax.images.sources import arrays
from jepa_jax.images.sources.records import Unusable
from jepa_jax.jobs import JobOptions, run_job

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3), np.uint8)


def refused(path: object, message: str) -> None:
    with pytest.raises(jj.ArgumentError, match=message) as caught:
        open_source(str(path))
    said = str(caught.value)
    assert "\n" not in said
    assert str(path).rpartition("/")[2] in said


def npy(shape: str = "(2, 9, 8, 3)", dtype: str = "'|u1'", fortran: str = "False", extra: str = "") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, {extra}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + PICTURES.tobytes()


# Arrays


def test_a_header_written_by_hand_is_read(tmp_path: Path):
    (tmp_path / "a.npy").write_bytes(npy())
    source = open_source(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.array([source.read(i) for i in range(2)]), PICTURES)


def test_nothing_in_a_header_is_evaluated(tmp_path: Path):
    (tmp_path / "a.npy").write_bytes(npy(extra="'x': " + "-" * 9000 + "1"))  # ends Python's own parser
    assert len(open_source(tmp_path / "a.npy").keys) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("(-2, 9, 8, 3)"), r"claims the shape \(-2"),
        (npy("(2, -9, -8, 3)"), "claims the shape"),
        (npy("(9000000000, 9, 8, 3)"), "ends early: 432 of the 1944000000000 bytes"),
        (npy("(" + "9" * 18 + ", " + "9" * 18 + ", 8, 3)"), "ends early"),
        (npy("(" + "9" * 5000 + ", 9, 8, 3)"), "claims the shape"),
        (npy("(1, 9, 8, 3)"), "216 bytes follow the array"),
        (npy("(0, 9, 8, 3)"), "there is no picture"),
        (npy("()"), "pictures must be"),
        (npy("(2, __import__('os').getpid(), 8, 3)"), "claims the shape"),
        (npy(dtype="'|O'"), "dtype object"),
        (npy(dtype="'<f8'"), "dtype float64"),
        (npy(dtype="'nothing'"), "dtype 'nothing'"),
        (npy(dtype="[('a', '|u1')]"), "dtype 'structured'"),
        (npy(fortran="None"), "cannot be understood"),
        (npy()[:9], "ends within its header"),
        (npy()[:40], "cannot be understood"),
        (npy().replace(b"NUMPY\x01", b"NUMPY\x07"), r"version 7\.0 is unknown"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 4 + b" " * 99, "its header claims 4294967295 bytes"),
        (b"no array at all", "does not begin as"),
    ],
)
def test_damaged_arrays(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "a.npy").write_bytes(content)
    refused(tmp_path / "a.npy", f"a.npy.*({message})")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", content)
    refused(tmp_path / "a.npz", f"a.npz.*({message})")


def test_object_arrays_are_not_unpickled(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    refused(tmp_path / "a.npy", "dtype object")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_fortran_order(suffix: str, tmp_path: Path):
    for pictures in (np.asfortranarray(PICTURES), np.asfortranarray(PICTURES[..., 0])):
        path = tmp_path / f"a.{suffix}"
        np.save(path, pictures) if suffix == "npy" else np.savez(path, pictures)
        source = open_source(path)
        np.testing.assert_array_equal(np.array([source.read(i) for i in range(2)]), pictures)


def test_an_array_that_is_cut_while_it_is_read(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((40, 200, 200, 3), np.uint8))
    source = open_source(tmp_path / "a.npy")
    assert np.asarray(source.read(39)).shape == (200, 200, 3)
    with (tmp_path / "a.npy").open("r+b") as stream:
        stream.truncate(130_000)
    assert np.asarray(source.read(0)).shape == (200, 200, 3)
    with pytest.raises(ImageError, match=r"a\.npy ends within this record: 9872 of its 120000 bytes are there"):
        source.read(1)
    with pytest.raises(ImageError, match="0 of its 120000 bytes"):
        source.read(39)


def npz(change: Callable[[bytearray, zipfile.ZipInfo], None], compression: int = zipfile.ZIP_STORED) -> bytes:
    """One array, stored, with something changed in the file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("images.npy", npy())
    content = bytearray(stream.getvalue())
    change(content, zipfile.ZipFile(stream).getinfo("images.npy"))
    return bytes(content)


def _damage(content: bytearray, member: zipfile.ZipInfo) -> None:
    content[300] ^= 255


def _encrypt(content: bytearray, member: zipfile.ZipInfo) -> None:
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1


def _claim(content: bytearray, member: zipfile.ZipInfo) -> None:
    at = content.rindex(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<I", 2**32 - 2)


def _cut(content: bytearray, member: zipfile.ZipInfo) -> None:
    del content[200:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npz(_damage), "Bad CRC-32"),
        (npz(_damage, compression=zipfile.ZIP_DEFLATED), "rror|CRC"),
        (npz(_encrypt), "is encrypted"),
        (npz(_claim), "claims 4294967294 bytes in"),
        (npz(_cut), "not a zip file"),
        (npz(lambda *_: None, compression=zipfile.ZIP_LZMA), "by another method"),
    ],
)
def test_damaged_archives_of_arrays(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz", rf"a\.npz cannot be read as a NumPy array: .*({message})")


def test_an_archive_with_one_name_twice_or_none(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", npy())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("images.npy", npy())
    refused(tmp_path / "a.npz", "2 arrays called 'images'")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("notes.txt", "")
    refused(tmp_path / "a.npz", r"holds the arrays \[\]")


# Tables


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path\na\0.png\n", "UTF-16 or binary; save it as UTF-8"),
        ("path\na.png\n".encode("utf-16"), "UTF-16"),
        ("path\na.png\n".encode("utf-16-le"), "UTF-16"),
        ("path\nnaïve.png\n".encode("latin-1"), "utf-8"),
        (b"path\n" + b"a" * 200_000 + b"\n", "field larger than field limit"),
        (b'path\n"a.png\n', "unexpected end"),
        (b'path\n"a.png" x\n', "expected after"),
        (b"\n\n\n", "is empty: it has no columns"),
    ],
)
def test_damaged_csv(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(content)
    refused(tmp_path / "a.csv", message)


def test_a_table_that_a_spreadsheet_wrote(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("path;key\r\na.png;1\r\nb.png;2\r\n".encode("utf-8-sig"))
    assert list(open_source(tmp_path / "a.csv").keys) == ["1", "2"]


def test_tables_of_other_types(tmp_path: Path):
    path = tmp_path / "a.parquet"
    words = pa.array(["a.png", "b.png", "a.png"])
    pq.write_table(pa.table({"path": words.dictionary_encode(), "key": pa.array([1, 2, 3])}), path)
    assert list(open_source(path).keys) == ["1", "2", "3"]
    pq.write_table(pa.table({"path": words.cast(pa.large_string()), "bytes": pa.array([b"\xff"] * 3)}), path)
    refused(path, "holds pictures in its column 'bytes', and could list some by paths in 'path'")
    assert list(open_source(f"{path}::path").keys) == ["a.png", "b.png", "a.png#2"]
    for values, kind in (
        (pa.array([["a.png"]]), "list"),
        (pa.array([{"byte": b"", "path": "a.png"}]), "struct"),
        (pa.array([1.5]), "double"),
        (pa.array([b"\x89PNG"], pa.binary(4)), "fixed_size_binary"),
    ):
        pq.write_table(pa.table({"path": values}), path)
        refused(path, f"its column 'path' is of type {kind}.*; paths and keys must be text")


def test_text_that_is_no_utf8_in_parquet(tmp_path: Path):
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"na\xefve.png"]).buffers())
    pq.write_table(pa.table({"path": bad}), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", r"cannot be read as a list: .*utf-8")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 40 + b"\xff\xff\xff\x7fPAR1"])
def test_damaged_parquet(content: bytes, tmp_path: Path):
    (tmp_path / "a.parquet").write_bytes(content)
    refused(tmp_path / "a.parquet", "cannot be read as a Parquet table")


# Archives


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.DEFAULT_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PICTURES[0]).save(stream, "PNG")
    return stream.getvalue()


def reasons(path: Path) -> dict[str, str]:
    source = open_source(path)
    pairs = zip(source.keys, source.locators, strict=True)
    return {key: locator.reason for key, locator in pairs if isinstance(locator, Unusable)}


def test_members_that_are_no_files_of_their_own(tmp_path: Path):
    path = tar(
        tmp_path / "a.tar",
        (member("good.png"), picture()),
        (member("linked.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
        (member("hard.png", type=tarfile.LNKTYPE, linkname="good.png"), b""),
        (member("pipe.png", type=tarfile.FIFOTYPE), b""),
        (member("/absolute.png"), picture()),
        (member("a/../../up.png"), picture()),
    )
    found = reasons(path)
    assert set(found) == {"linked", "hard", "pipe", "/absolute", "a/../../up"}
    assert found["linked"] == "the member is a link to '/etc/passwd', not a file"
    assert found["/absolute"] == found["a/../../up"] == "the member's path leads out of the archive"


def test_a_member_that_is_larger_than_its_archive(tmp_path: Path):
    path = tar(tmp_path / "a.tar", (member("good.png"), picture()), (member("huge.png"), picture()))
    content = bytearray(path.read_bytes())
    at = content.index(b"huge.png")
    content[at + 124 : at + 136] = b"77777777777\0"
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    path.write_bytes(content)
    found = reasons(path)
    assert "ends within this record" in found["huge"]
    assert "what follows is lost" in found["#damage"]


@pytest.mark.parametrize(
    ("size", "body"),
    [(2**60, b""), (2**33, b""), (2**20 + 1, bytes(2**20 + 1)), (2048, b"9" * 2048), (512, b"20 path=" + b"9" * 9)],
)
def test_headers_that_claim_too_much(size: int, body: bytes, tmp_path: Path):
    path = tar(tmp_path / "a.tar", (member("good.png"), picture()))
    header = member("pax", type=tarfile.XHDTYPE)
    header.size = size
    end = path.read_bytes().rstrip(b"\0")
    end += bytes(-len(end) % 512) + header.tobuf(tarfile.GNU_FORMAT) + body.ljust(-(-len(body) // 512) * 512, b"\0")
    path.write_bytes(end + bytes(1024))
    assert open_source(path).read(0) == picture()
    assert list(reasons(path)) == ["#damage"]


def test_names_from_pax_headers(tmp_path: Path):
    long = "é" * 150 + ".png"
    path = tar(tmp_path / "a.tar", (member(long), picture()), format=tarfile.PAX_FORMAT)
    assert list(open_source(path).keys) == [long.removesuffix(".png")]


# The machine's faults are its own


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError(), ConnectionResetError()])
def test_the_machines_faults_pass(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(stream: object) -> None:
        raise error

    np.save(tmp_path / "a.npy", PICTURES)
    monkeypatch.setattr(arrays, "read_header", fail)
    with pytest.raises(type(error)):
        open_source(tmp_path / "a.npy")


def test_a_disk_that_goes_away_stops_the_job_of_a_list(tmp_path: Path):
    for disk in ("a", "b"):
        (tmp_path / disk).mkdir()
        for i in range(3):
            (tmp_path / disk / f"{i}.png").write_bytes(picture())
    rows = [f"{disk}/{i}.png" for disk in ("a", "b") for i in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(["path", *rows]))
    source, options = open_source(tmp_path / "list.csv"), JobOptions(batch_size=2, shard_size=4)
    (tmp_path / "b").rename(tmp_path / "away")
    with pytest.raises(
        JobError, match=r"/b is not there, and 4 of the 8 records of .* lie in it: no image is to blame"
    ):
        run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options)
    (tmp_path / "away").rename(tmp_path / "b")
    run_job(tiny_encoder(), open_source(tmp_path / "list.csv"), tmp_path / "out", Silent(), options)
    assert table(tmp_path / "out")["key"].to_pylist() == [row for row in rows if "3" not in row]
    assert set(failures(tmp_path / "out")) == {"a/3.png", "b/3.png"}


def test_a_damaged_array_record_does_not_end_the_process(tmp_path: Path):
    module = pytest.importorskip("array_record.python.array_record_module")
    writer = module.ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    for _ in range(3):
        writer.write(picture())
    writer.close()
    content = bytearray((tmp_path / "a.array_record").read_bytes())
    (tmp_path / "a.array_record").write_bytes(content[: len(content) // 2])
    program = f"""
import jepa_jax as jj
from jepa_jax.images import open_source
try:
    open_source({str(tmp_path / "a.array_record")!r})
except jj.ArgumentError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot be read as ArrayRecord" in done.stdout


def test_two_archives_in_one_file_are_told(tmp_path: Path):
    first, second = (tar(tmp_path / f"{name}.tar", (member(f"{name}.png"), picture())) for name in "ab")
    whole = tmp_path / "both.tar"
    whole.write_bytes(first.read_bytes() + second.read_bytes())
    assert "another archive" in reasons(whole)["#damage"]
    assert reasons(first) == {}


def test_blanks_around_the_names_of_columns_are_none_of_them(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "list.csv").write_text("path , key\na.png,A\n")
    assert list(open_source(tmp_path / "list.csv").keys) == ["A"]


def test_images_among_other_files_say_what_to_give(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "a.md").write_text("about it")
    with pytest.raises(jj.ArgumentError, match="Images among other files are given by their folder"):
        open_source(tmp_path / "a.*")
    assert list(open_source(tmp_path / "*.png").keys) == ["a.png"]
