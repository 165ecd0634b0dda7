"""Videos as an input: which frames make a clip, how they are prepared, and one reason for each file that is none."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
import torch
import video_files
from av.error import FFmpegError
from PIL import Image
from small_inputs import write_tar

import jepa_jax as jj
from jepa_jax.errors import ImageError
from jepa_jax.images import InputRecipe, PreprocessSpec, open_source, videos
from jepa_jax.images.decoding import Decoded, decode_record
from jepa_jax.images.pipeline import decode_ahead
from jepa_jax.images.preprocessing import preprocess, preprocess_clips
from jepa_jax.images.sources import open_sources
from jepa_jax.images.sources.videos import open_video
from jepa_jax.images.videos import VideoFile, frames_of, read_clip

SPEC = PreprocessSpec(18, 16, "bilinear", frames=4, frame_step=3)  # frames 0, 3, 6, 9
RECIPE = InputRecipe(SPEC)
PICTURES = video_files.frames()

# Coding in 4:2:0 and by wavelets or cosines: some of 255 levels, over a smooth picture, of which a unit is 58.
CODED = 0.25


def decoded(content: bytes) -> Decoded:
    """What a job makes of a file with this content."""
    return decode_record(0, "key", content, bytes, RECIPE)


def decode_clip(content: bytes | np.ndarray | VideoFile) -> np.ndarray:
    assert not isinstance(content, np.ndarray)
    return read_clip(content, SPEC)


@pytest.mark.parametrize("kind", video_files.KINDS)
def test_a_clip_has_the_frames_of_the_rule(kind: str, tmp_path: Path):
    content = video_files.video(kind, PICTURES, sound=kind in ("mp4", "mkv"))
    clip = read_clip(content, SPEC)
    assert clip.shape == (4, 16, 16, 3)
    expected = preprocess(list(PICTURES[[0, 3, 6, 9]]), SPEC)
    others = preprocess(list(PICTURES[[1, 4, 7, 10]]), SPEC)
    assert np.sqrt(np.mean((clip - expected) ** 2)) <= CODED
    for place in range(4):  # each is nearest its own frame
        assert np.mean((clip[place] - expected[place]) ** 2) < np.mean((clip[place] - others[place]) ** 2)
    path = tmp_path / f"video.{kind}"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_clip(VideoFile(str(path)), SPEC), clip)
    np.testing.assert_array_equal(decoded(content).inputs, clip[None])


def test_a_lossless_video_gives_its_own_pixels():
    content = video_files.video("rgb.mkv", PICTURES)
    found = np.stack([np.asarray(frame) for frame in frames_of(content, [2, 5])])
    np.testing.assert_array_equal(found, PICTURES[[2, 5]])
    np.testing.assert_array_equal(read_clip(content, SPEC), preprocess_clips([PICTURES[[0, 3, 6, 9]]], SPEC)[0])


def test_frames_are_prepared_as_the_published_processor_does_it():
    """Which resizes by this very function; it rounds each of its two passes by itself, as Pillow does."""
    spec = PreprocessSpec(292, 256, "bilinear", frames=2)
    clip = video_files.frames(2, 240, 426)
    pixels = torch.nn.functional.interpolate(
        torch.as_tensor(clip).permute(0, 3, 1, 2), (292, 518), mode="bilinear", antialias=True
    )
    cut = pixels[:, :, 18 : 18 + 256, 131 : 131 + 256].permute(0, 2, 3, 1).numpy() / 255
    expected = (cut - np.array(spec.mean)) / np.array(spec.std)
    assert np.max(np.abs(preprocess_clips([clip], spec)[0] - expected)) <= 1.01 / 255 / min(spec.std)


def test_a_video_that_was_filmed_on_end_stands_upright():
    content = bytearray(video_files.video("mp4", PICTURES))
    upright = next(iter(frames_of(bytes(content), [0])))
    header = content.index(b"tkhd")
    matrix = content.index(bytes.fromhex("00010000" + "00" * 12 + "00010000"), header)
    quarter = [0, 0x10000, 0, 0xFFFF0000, 0, 0, 0, 0, 0x40000000]  # clockwise
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big") for value in quarter)
    turned = next(iter(frames_of(bytes(content), [0])))
    assert turned.size == upright.size[::-1]
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(upright), -1))


def test_nothing_is_read_behind_the_last_frame_that_is_wanted():
    """Of a video of any length: it is broken off there, and its clip is whole."""
    content = video_files.video("mkv", video_files.frames(60))
    whole = decoded(content)
    assert whole.inputs is not None
    np.testing.assert_array_equal(decoded(content[: len(content) // 2]).inputs, whole.inputs)
    assert decoded(content[: len(content) // 10]).inputs is None


def test_frames_that_are_too_large_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(videos, "MAX_PIXELS", 48 * 36 - 1)
    assert decoded(video_files.video("mp4", PICTURES)).reason == (
        "the video has 48 x 36 pixels, over the limit of 1727; shrink it"
    )


WRONG: dict[str, tuple[bytes, str]] = {
    "empty.mp4": (b"", "the file is empty"),
    "text.mp4": (b"#EXTM3U\nhttp://localhost/a.ts\n", "the content is no known video format"),
    "picture.mp4": (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "the content is no known video format"),
    "sound.mp4": (video_files.sound(), "the file has no video stream; it holds 1 of sound"),
    "sound.mkv": (video_files.sound("matroska"), "the file has no video stream; it holds 1 of sound"),
    "cut.mp4": (
        video_files.video("mp4", PICTURES)[:1500],
        "the video's index is missing or damaged; the file may be incomplete",
    ),
    "cut.mkv": (
        video_files.video("mkv", PICTURES)[:9000],
        r"the video breaks off after \d+ frames, and has 18 or more by its header",
    ),
    "short.webm": (
        video_files.video("webm", PICTURES[:9]),
        "the video is too short: it has 9 frames, and a clip of 4 frames, 3 apart, needs 10; give fewer frames or a "
        "smaller frame_step",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_file_that_is_none_has_its_reason(name: str):
    content, reason = WRONG[name]
    found = decoded(content)
    assert re.fullmatch(reason, found.reason)
    assert not found.no_fault_of_its_own
    assert not found.unreadable


@pytest.mark.parametrize(("kind", "first", "last"), [("mp4", b"mdat", b"moov"), ("avi", b"movi", b"idx1")])
def test_what_a_player_would_conceal_is_refused(kind: str, first: bytes, last: bytes):
    whole = video_files.video(kind, video_files.frames(12, seed=1))
    recipe = InputRecipe(PreprocessSpec(18, 16, frames=12))
    # Behind what an encoder says of itself, up to the index.
    places = range(whole.index(first) + 750, whole.index(last) - 60, 50)
    shown_as_if_whole: list[int] = []
    for place in places:
        content = whole[:place] + b"\xff" * 60 + whole[place + 60 :]
        with av.open(io.BytesIO(content), "r") as container, contextlib.suppress(FFmpegError):
            if any(frame.is_corrupt for frame in container.decode(video=0)):
                shown_as_if_whole.append(place)
        found = decode_record(0, "key", content, bytes, recipe)
        assert found.inputs is None or place not in shown_as_if_whole, place
        assert found.inputs is not None or found.reason
    assert shown_as_if_whole


def test_a_file_that_is_away_and_a_pipe(tmp_path: Path):
    away = decode_record(0, "key", str(tmp_path / "away.mp4"), open_video, RECIPE)
    assert (away.reason, away.unreadable) == ("it cannot be read: No such file or directory", True)
    os.mkfifo(tmp_path / "pipe.mp4")
    assert decode_record(0, "key", str(tmp_path / "pipe.mp4"), open_video, RECIPE).reason == "it is no regular file"


class OnADiskThatFails(VideoFile):
    """A video whose later half cannot be read any more."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """See `VideoFile`."""

        class Failing(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell() > half:
                    raise OSError(errno.EIO, "Input/output error")
                return super().read(size)

        content = video_files.video("avi", video_files.frames(200, 100, 100))
        half = len(content) // 2
        yield Failing(content)


def test_a_disk_that_fails_is_no_video_s_fault():
    recipe = InputRecipe(PreprocessSpec(18, 16, frames=20, frame_step=10))
    found = decode_record(0, "key", __file__, OnADiskThatFails, recipe)
    assert found.inputs is None
    assert (found.reason, found.no_fault_of_its_own) == ("it cannot be read: Input/output error", True)


def test_pictures_and_videos_are_told_apart_record_by_record():
    picture = np.zeros((20, 20, 3), np.uint8)
    assert (
        decode_record(0, "key", picture, lambda p: p, RECIPE).reason == "it is a picture, and the encoder takes clips"
    )
    of_images = InputRecipe(PreprocessSpec(18, 16))
    found = decode_record(0, "key", VideoFile(__file__), lambda v: v, of_images)
    assert found.reason == "it is a video, and the encoder takes images"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos and a note, in two folders."""
    root = tmp_path_factory.mktemp("videos")
    (root / "b").mkdir()
    for name in ("b/1.mp4", "a.webm", "c.MKV"):
        kind = name.lower().rpartition(".")[2]
        (root / name).write_bytes(video_files.video(kind, PICTURES))
    (root / "note.txt").write_text("about these\n")
    return root


def test_a_folder_of_videos(folder: Path):
    source = open_source(folder)
    assert list(source.keys) == ["a.webm", "b/1.mp4", "c.MKV"]
    assert (source.videos, source.left_out) == (True, 1)
    assert source.place(1) == str(folder / "b" / "1.mp4")
    assert source.sizes() == [(folder / key).stat().st_size for key in source.keys]
    for workers in (0, 1):
        found = list(decode_ahead(source, range(3), RECIPE, workers=workers, ahead=2))
        assert [record.reason for record in found] == ["", "", ""]
        assert [record.bytes for record in found] == source.sizes()
        assert all(record.inputs is not None and record.inputs.shape == (1, 4, 16, 16, 3) for record in found)


def test_videos_by_their_names_by_a_pattern_and_in_a_list(folder: Path, tmp_path: Path):
    assert list(open_source(folder / "b" / "1.mp4").keys) == ["1.mp4"]
    assert list(open_source(f"{folder}/*.*[mM]*").keys) == ["a.webm", "c.MKV"]
    assert list(open_sources([folder / "a.webm", folder / "b"]).keys) == ["a.webm", "b/1.mp4"]
    listed = tmp_path / "list.csv"
    listed.write_text(f"path\n{folder}/a.webm\n{folder}/b/1.mp4\n")
    source = open_source(listed)
    assert source.videos
    assert [record.reason for record in decode_ahead(source, range(2), RECIPE, workers=0, ahead=1)] == ["", ""]


def test_videos_beside_pictures_are_left_out(folder: Path, tmp_path: Path):
    """As they were before there were encoders of clips: a camera has both in one folder."""
    (tmp_path / "clip.mp4").write_bytes((folder / "b" / "1.mp4").read_bytes())
    Image.new("RGB", (20, 20)).save(tmp_path / "picture.png")
    source = open_source(tmp_path)
    assert (list(source.keys), source.videos, source.left_out) == (["picture.png"], False, 1)
    with pytest.raises(jj.ArgumentError, match=r"holds videos, and input .*picture\.png images; score them one"):
        open_sources([tmp_path / "picture.png", tmp_path / "clip.mp4"])
    write_tar(tmp_path / "pictures.tar", {"a.png": (tmp_path / "picture.png").read_bytes()})
    (tmp_path / "picture.png").unlink()
    source = open_source(tmp_path)
    assert (len(source.keys), source.videos) == (1, False)


def test_videos_in_archives_are_read_where_they_lie(tmp_path: Path):
    held = {f"{i}.{kind}": video_files.video(kind, PICTURES) for i, kind in enumerate(video_files.KINDS)}
    archive = write_tar(tmp_path / "shard-0.tar", held | {"0.txt": b"a caption", "empty.mp4": b""})
    source = open_source(archive)
    assert (source.videos, source.left_out) == (True, 1)
    assert list(source.keys) == [*map(str, range(len(held))), "empty"]
    for index, (name, content) in enumerate(held.items()):
        video = source.read(index)
        assert isinstance(video, VideoFile)
        assert source.sizes()[index] == video.size() == len(content)
        assert source.place(index) == f"{archive}::{name}"
        np.testing.assert_array_equal(decode_clip(video), decode_clip(content))
    with pytest.raises(ImageError, match="the file is empty"):
        decode_clip(source.read(len(held)))


def test_of_an_archive_with_pictures_videos_are_asked_for_by_their_ending(tmp_path: Path):
    picture = io.BytesIO()
    Image.fromarray(PICTURES[0]).save(picture, "PNG")
    film = video_files.video("mp4", PICTURES)
    shards = [write_tar(tmp_path / f"{i}.tar", {"a.png": picture.getvalue(), "a.mp4": film}) for i in range(2)]
    pictures = open_source(tmp_path / "*.tar")
    assert (list(pictures.keys), pictures.videos, pictures.left_out) == (["0.tar/a", "1.tar/a"], False, 2)
    films = open_source(f"{tmp_path / '*.tar'}::mp4")
    assert (list(films.keys), films.videos, films.left_out) == (["0.tar/a", "1.tar/a"], True, 2)
    np.testing.assert_array_equal(decode_clip(films.read(1)), decode_clip(film))
    # Cut while it is read.
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[: content.rindex(film[-9:])])
    with pytest.raises(ImageError, match="the archive ends within this record of"):
        decode_clip(films.read(1))


def test_frames_that_are_handed_over_are_taken_as_they_are():
    clip = PICTURES[:4]
    expected = preprocess(list(clip), SPEC)[None]
    for given in ([clip], clip[None], [[Image.fromarray(frame) for frame in clip]]):
        np.testing.assert_array_equal(preprocess_clips(given, SPEC), expected)
    for wrong, message in (
        (clip, r"images is an array of shape \(4, 36, 48, 3\), and the encoder takes clips"),
        (Image.fromarray(clip[0]), "images is one picture, and the encoder takes clips"),
        ([clip[0]], r"images\[0\] is one picture, and the encoder takes clips"),
        ([clip, PICTURES[:5]], r"images\[1\] has 5 frames, and the encoder takes 4: .* frames=5"),
    ):
        with pytest.raises(jj.ArgumentError, match=message):
            preprocess_clips(wrong, SPEC)
    with pytest.raises(ImageError, match=r"images\[0\], frame \[0\]: the image array has dtype float32"):
        preprocess_clips([clip.astype(np.float32)], SPEC)


def test_colours_are_told_by_the_video():
    """A camera's high definition is coded by other weights than older video: the frame says which."""
    planes = np.repeat(np.array([81, 90, 240], np.uint8), [64, 16, 16])[:, None].repeat(64, axis=1)  # red
    for space, expected in ((5, (254, 0, 0)), (1, (255, 24, 0))):
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.colorspace = space
        assert np.max(np.abs(frame.to_ndarray(format="rgb24")[8, 8].astype(int) - expected)) <= 2


def test_videos_in_a_store(folder: Path):
    import fsspec

    store = fsspec.filesystem("memory")
    for name in ("a.webm", "b/1.mp4"):
        store.pipe(f"/videos-of-a-test/{name}", (folder / name).read_bytes())
    source = open_source("memory://videos-of-a-test")
    assert (list(source.keys), source.videos) == (["a.webm", "b/1.mp4"], True)
    assert [record.reason for record in decode_ahead(source, range(2), RECIPE, workers=0, ahead=1)] == ["", ""]
    local = open_source(folder)
    found, expected = (next(decode_ahead(each, [0], RECIPE, workers=0, ahead=1)) for each in (source, local))
    np.testing.assert_array_equal(found.inputs, expected.inputs)
