"""`jepa-jax score` over videos: ten of several containers and codecs to a table and a report; and what is none."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch_families as families
import torch_vjepa2 as reference
import video_files
from command_line import run
from PIL import Image

import jepa_jax as jj
from jepa_jax.images.videos import VideoFile, read_clip
from jepa_jax.jobs import open_source
from jepa_jax.scored.scored_images import ScoredImages


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small V-JEPA 2, as a Hugging Face folder, with clips of four frames."""
    shape = {"width": 36, "heads": 2, "depth": 1, "mlp_ratio": 1.5, "patch_size": 8, "image_size": 16, "frames": 4}
    return families.save_folder(reference.random_vjepa2(**shape), tmp_path_factory.mktemp("model") / "folder")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten, one of each kind."""
    folder = tmp_path_factory.mktemp("videos")
    assert len(video_files.KINDS) == 10
    for seed, kind in enumerate(video_files.KINDS):
        pictures = video_files.frames(20, 36 + 2 * seed, 48, seed)
        (folder / f"{seed}.{kind}").write_bytes(video_files.video(kind, pictures, sound=kind in ("mp4", "mkv")))
    return folder


def rows(output: Path, name: str = "scores") -> list[dict]:
    parts = sorted((output / name).glob("part-*.parquet")) if name == "scores" else [output / name]
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


@pytest.fixture(scope="module")
def scored(videos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ten, and five files that are none."""
    bad = {
        "empty.mov": b"",
        "notes.avi": b"not a film\n" * 9,
        "short.webm": video_files.video("webm", video_files.frames(6)),
        "sound.mp4": video_files.sound(),
        "truncated.mp4": video_files.video("mp4", video_files.frames(20))[:1200],
    }
    for name, content in bad.items():
        (videos / name).write_bytes(content)
    output = tmp_path_factory.mktemp("out") / "scores"
    done = run("score", videos, "--model", model, "--output", output, "--save", "embedding", "--workers", "1")
    assert done.returncode == 0, done.stderr
    for name in bad:
        (videos / name).unlink()
    return output


def test_ten_videos_to_a_table(scored: Path, videos: Path, model: Path):
    table = {row["key"]: row for row in rows(scored)}
    assert sorted(table) == sorted(path.name for path in videos.iterdir())
    encoder = jj.load_encoder(model)
    assert encoder.spec.preprocess.frames_needed == 7
    for key, row in table.items():
        clip = read_clip(VideoFile(str(videos / key)), encoder.spec.preprocess)[None]
        np.testing.assert_allclose(row["embedding"], np.asarray(encoder(clip))[0], rtol=0, atol=1e-5)
        assert row["place"] == str(videos / key)
        assert row["log_volume_rank"] == 35
        if key.startswith("0."):
            np.testing.assert_allclose(row["score"], jj.score(encoder, clip).score[0], rtol=0, atol=0.01)
    pinned = json.loads((scored / "manifest.json").read_text())["pinned"]
    assert (pinned["preprocessing"]["frames"], pinned["preprocessing"]["frame_step"]) == (4, 2)
    assert "av" in pinned


def test_each_file_that_is_none_is_a_failure_with_its_reason(scored: Path):
    assert {row["key"]: row["reason"] for row in rows(scored, "failures.parquet")} == {
        "empty.mov": "the file is empty",
        "notes.avi": "the content is no known video format",
        "short.webm": "the video is too short: it has 6 frames, and a clip of 4 frames, 2 apart, needs 7; give fewer "
        "frames or a smaller frame_step",
        "sound.mp4": "the file has no video stream; it holds 1 of sound",
        "truncated.mp4": "the video's index is missing or damaged; the file may be incomplete",
    }


def test_a_report_shows_frames_in_a_row(scored: Path, tmp_path: Path):
    done = run("report", scored, "--output", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert 'class="tiles clips"' in page
    assert page.count('width="384" height="96"') == page.count("data:image/webp") >= 9
    assert "frames of a clip" in page
    assert "10 clips" in page
    spoken = re.sub(r"<(style|script|svg).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "How typical are these clips?" in spoken
    assert "image" not in spoken
    assert not re.search('(alt|aria-label)="[^"]*image', page)
    assert "Complexity</h2>" not in page  # measured on pictures alone
    (listed,) = re.findall(r'class="listing">([^<]+)', page)
    facts = json.loads(zlib.decompress(base64.b64decode(listed)))
    assert (facts["total"], facts["frames"], len(facts["paths"])) == (10, 4, 10)


def test_a_notebook_shows_frames_in_a_row(scored: Path):
    images = ScoredImages.read(scored)
    picture = images.picture(0, 40)
    assert picture is not None
    assert picture.size == (160, 40)
    assert images._repr_html_().count("width:440px") == 20


def test_most_clips_may_be_predicted(tmp_path: Path):
    """Eighty of a smaller encoder, and one that is none: as many as it takes to promise 90% and an alarm."""
    shape = {"width": 12, "heads": 2, "depth": 1, "mlp_ratio": 1.5, "patch_size": 8, "image_size": 16, "frames": 2}
    model = families.save_folder(reference.random_vjepa2(**shape), tmp_path / "model")
    videos = tmp_path / "videos"
    videos.mkdir()
    for seed in range(80):
        pictures = video_files.frames(4, 20, 24, seed)
        (videos / f"{seed:02}.mp4").write_bytes(video_files.video("mp4", pictures))
    (videos / "none.mp4").write_bytes(b"")
    asked = ("--method", "amortised", "--exact-sample", "66", "--workers", "0")
    done = run("score", videos, "--model", model, "--output", tmp_path / "out", *asked)
    assert done.returncode == 0, done.stderr
    assert "one forward pass of 81 videos" in done.stdout + done.stderr
    assert "80 clips scored, 1 failed" in done.stdout
    methods = [row["method"] for row in rows(tmp_path / "out")]
    assert methods.count("exact") >= 65
    assert methods.count("amortised") == 80 - methods.count("exact") > 0
    assert [row["reason"] for row in rows(tmp_path / "out", "failures.parquet")] == ["the file is empty"]


def test_layers_of_videos_have_columns_of_their_own(videos: Path, model: Path, tmp_path: Path):
    scored = jj.score_folder(videos, model=model, output=tmp_path / "out", frames=2, limit=2, quiet=True)
    assert len(scored) == 2
    done = run("score", videos, "--model", model, "--output", tmp_path / "layers", "--limit", "2", "--layer", "-1")
    assert done.returncode == 0, done.stderr
    for row in rows(tmp_path / "layers"):
        assert row["score_layer_1"] == pytest.approx(row["score"], abs=1e-3)


def test_calibration_of_videos_names_what_is_missing(videos: Path, model: Path):
    done = run("calibrate", videos, "--model", model, "--frames", "2")
    assert done.returncode == 2
    assert "--images must be at least 77 for this coverage" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("calibrate", videos, "--model", "jepa-tiny")
    assert done.returncode == 2
    assert "holds videos, and jepa-tiny takes images" in done.stderr


def test_other_frames_are_another_job(videos: Path, model: Path, scored: Path, tmp_path: Path):
    arguments = ("score", videos, "--model", model, "--output")
    done = run(*arguments, scored, "--frames", "2", "--save", "embedding")
    assert done.returncode == 2
    assert "frames" in done.stderr
    done = run(*arguments, tmp_path / "out", "--frames", "2", "--frame-step", "5", "--limit", "2", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "jepa-tiny"), "holds videos, and jepa-tiny takes images; give an encoder of clips such as"),
        (("--frames", "3"), "frames=3 must be a multiple of 2"),
        (("--views", "4"), "views=4: random views are of images, and "),
        (("--model", "jepa-tiny", "--frames", "4"), "frames=4: 'jepa-tiny' takes images, and no clips; leave it out"),
    ],
)
def test_a_mistake_is_one_clear_message(
    videos: Path, model: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
):
    if "--model" not in arguments:
        arguments = ("--model", str(model), *arguments)
    done = run("score", videos, "--output", tmp_path / "out", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_are_no_clips(model: Path, tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "pictures" / "a.png")
    done = run("score", tmp_path / "pictures", "--model", model, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert re.search(r"holds images, and \S+ takes clips of 4 frames; give an encoder of images", done.stderr)
    assert not (tmp_path / "out").exists()


def test_a_plan_of_clips(model: Path):
    done = run("plan", "--model", model, "--frames", "8")
    assert done.returncode == 0, done.stderr
    assert "8 frames of 16 x 16 pixels, 36 rows in a Jacobian" in done.stdout


def test_clips_are_measured(model: Path, tmp_path: Path):
    result = tmp_path / "here.json"
    done = run("bench", "--model", model, "--frames", "2", "--batch-size", "1", "--seconds", "0", "--output", result)
    assert done.returncode == 0, done.stderr
    assert "2 frames of 16 pixels" in done.stdout
    found = json.loads(result.read_text())
    assert found["facts"]["frames"] == 2
    assert len(found["rows"]) == 1


def test_a_dry_run_of_videos(videos: Path, model: Path, tmp_path: Path):
    done = run("score", videos, "--model", model, "--output", tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert open_source(videos).videos
