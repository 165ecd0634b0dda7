"""Damaged tar archives: what can be read is scored, and that something is lost is recorded, never passed over."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import jepa_jax as jj
from jepa_jax.images import open_source
from jepa_jax.images.sources.records import Unusable

BLOCK = 512


def archive(path: Path, count: int = 3) -> list[int]:
    """An archive of small pictures; where each member's header is."""
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            stream = io.BytesIO()
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(stream, "PNG")
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(stream.getvalue())
            tar.addfile(info, io.BytesIO(stream.getvalue()))
    with tarfile.open(path) as tar:
        return [member.offset for member in tar]


def overwritten(path: Path, at: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)


def with_size(path: Path, header: int, size: int) -> None:
    """Give a member another size, with a checksum that is right."""
    block = bytearray(path.read_bytes()[header : header + BLOCK])
    block[124:136] = (256**12 + size).to_bytes(13, "big")[1:] if size < 0 else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    overwritten(path, header, bytes(block))


def usable_and_damage(path: Path) -> tuple[list[str], list[str]]:
    source = open_source(path)
    records = list(zip(source.keys, source.locators, strict=True))
    usable = [key for key, locator in records if not isinstance(locator, Unusable)]
    return usable, [locator.reason for _, locator in records if isinstance(locator, Unusable)]


def test_a_whole_archive_has_no_damage(tmp_path: Path):
    archive(tmp_path / "a.tar")
    assert usable_and_damage(tmp_path / "a.tar") == (["0", "1", "2"], [])


def test_a_header_that_cannot_be_read_is_not_the_end(tmp_path: Path):
    path = tmp_path / "a.tar"
    overwritten(path, archive(path)[2], b"\xff" * BLOCK)
    usable, damage = usable_and_damage(path)
    assert usable == ["0", "1"]
    assert damage == ["the archive is damaged after 2 members, what follows is lost: the next header cannot be read"]


@pytest.mark.parametrize("within", [0, 100])
def test_an_archive_that_was_cut_says_so(within: int, tmp_path: Path):
    path = tmp_path / "a.tar"
    headers = archive(path)
    path.write_bytes(path.read_bytes()[: headers[2] + within])
    usable, damage = usable_and_damage(path)
    assert usable == ["0", "1"]
    assert len(damage) == 1
    assert "what follows is lost" in damage[0]


@pytest.mark.parametrize("size", [-BLOCK, -5])
def test_a_negative_size_ends_the_archive(size: int, tmp_path: Path):
    path = tmp_path / "a.tar"
    with_size(path, archive(path)[1], size)
    usable, damage = usable_and_damage(path)
    assert usable == ["0"]
    assert len(damage) == 1
    assert f"'1.png' claims a size of {size}" in damage[0]


def test_damage_has_a_key_of_its_own_in_each_archive(tmp_path: Path):
    for name in ("a.tar", "b.tar"):
        archive(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: 3 * BLOCK])
    assert list(open_source(tmp_path / "a.tar").keys)[-1] == "#damage"
    assert [key for key in open_source(tmp_path).keys if "#" in key] == ["a.tar/#damage", "b.tar/#damage"]


def test_an_archive_of_damage_alone_is_refused(tmp_path: Path):
    path = tmp_path / "a.tar"
    headers = archive(path)
    with_size(path, headers[0], -BLOCK)
    with pytest.raises(jj.ArgumentError, match="holds no image"):
        open_source(path)
