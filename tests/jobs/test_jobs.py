"""Scoring jobs on real files and real processes: whole tables, recorded failures, resume after kill -9."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from jobs_shared import Silent, table, tiny_encoder
from makes import TINY as SPEC
from PIL import Image

import jepa_jax as jj
from jepa_jax.encoders import Encoder, save_encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.output.records import default_shard_size
from jepa_jax.paths import to_path
from jepa_jax.scoring.options import ScoreOptions


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder()


@pytest.fixture(scope="module")
def checkpoint(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_encoder(encoder, path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures in two folders, one level deep, of several formats and sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(20):
        coarse = rng.integers(0, 256, (6, 5 + i % 4, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((70 + 7 * i, 90), Image.Resampling.BICUBIC)
        target = folder / f"class{i % 2}" / f"{i:02d}.{('jpg', 'png', 'webp')[i % 3]}"
        target.parent.mkdir(exist_ok=True)
        picture.save(target)
    return folder


def test_a_job_scores_every_image_as_the_library_does(encoder: Encoder, pictures: Path, tmp_path: Path):
    summary = run_job(
        encoder,
        open_source(pictures),
        tmp_path / "out",
        Silent(),
        JobOptions(columns=("embedding", "singular_values")),
    )
    assert (summary.records, summary.scored, summary.failed) == (20, 20, 0)
    rows = table(tmp_path / "out").to_pylist()
    files = [path for path in pictures.rglob("*") if path.is_file()]
    assert [row["key"] for row in rows] == sorted(path.relative_to(pictures).as_posix() for path in files)
    batch = encoder.preprocess([Image.open(pictures / row["key"]) for row in rows])
    expected = jj.score(encoder, batch)
    # The job batches differently; float32 rounding of a Jacobian moves a score by far less than 1e-4 nats here.
    np.testing.assert_allclose([r["score"] for r in rows], np.asarray(expected.score), atol=1e-4)
    np.testing.assert_allclose([r["embedding"] for r in rows], np.asarray(expected.embedding), atol=1e-5)
    values = np.asarray(expected.singular_values)
    np.testing.assert_allclose([r["singular_values"] for r in rows], values, atol=1e-5 * values.max())
    assert {r["log_volume_rank"] for r in rows} == {SPEC.embedding_size - 2}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["pinned"]["encoder_digest"] == encoder.digest
    assert pq.read_table(tmp_path / "out" / "failures.parquet").num_rows == 0


def test_bad_images_are_recorded_with_their_reason(encoder: Encoder, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    good = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    good.save(folder / "good.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    Image.new("L", (1, 30_000)).save(folder / "thread.png")
    good.save(folder / "torn.avif")
    torn = bytearray((folder / "torn.avif").read_bytes())
    payload = torn.index(b"mdat") + 4
    torn[payload : payload + 16] = b"\xff" * 16
    (folder / "torn.avif").write_bytes(torn)
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "notes.txt").write_text("left out")
    source = open_source(folder)
    assert source.left_out == 1
    summary = run_job(encoder, source, tmp_path / "out", Silent())
    assert (summary.scored, summary.failed) == (1, 7)
    reasons = {r["key"]: r["reason"] for r in pq.read_table(tmp_path / "out" / "failures.parquet").to_pylist()}
    for key, expected in {
        "cut.png": "cannot be decoded",
        "torn.avif": "cannot be decoded",
        "empty.jpg": "empty",
        "text.jpg": "no known image format",
        "bomb.png": "pixels",
        "thread.png": "too elongated",
        "gone.jpg": "cannot be read",
    }.items():
        assert expected in reasons[key]


def test_a_killed_job_is_resumed_without_rescoring(checkpoint: Path, pictures: Path, tmp_path: Path):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "jepa_jax", "score", str(pictures), "--model", str(checkpoint)]
    command += ["--output", str(output), "--shard-size", "1", "--batch-size", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list((output / "scores").glob("part-*.parquet"))) < 3:
        assert process.poll() is None, process.stderr.read().decode()  # pyright: ignore[reportOptionalMemberAccess]
        assert time.monotonic() < deadline, "no part was written"
        time.sleep(0.005)
    workers = psutil.Process(process.pid).children()
    assert workers
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=30)[1], "a worker outlives its job"
    before = {path.name: path.stat().st_mtime_ns for path in (output / "scores").glob("part-*.parquet")}
    assert 3 <= len(before) < 20
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"Resuming: {len(before)} of 20" in again.stdout
    after = {path.name: path.stat().st_mtime_ns for path in (output / "scores").glob("part-*.parquet")}
    assert len(after) == 20
    assert {name: after[name] for name in before} == before
    assert not list(output.rglob("*.tmp"))
    undisturbed = tmp_path / "undisturbed"
    command[command.index(str(output))] = str(undisturbed)
    subprocess.run(command, capture_output=True, check=True)
    assert table(output).equals(table(undisturbed))


def test_another_job_in_the_same_directory_is_refused(encoder: Encoder, pictures: Path, tmp_path: Path):
    source = open_source(pictures)
    run_job(encoder, source, tmp_path / "out", Silent())
    with pytest.raises(jj.JobError, match="precision: 'float32' there, 'float64' now"):
        run_job(encoder, source, tmp_path / "out", Silent(), JobOptions(ScoreOptions("float64")))
    other = Encoder(SPEC, initialize_params(SPEC.vit, seed=1))
    with pytest.raises(jj.JobError, match="encoder_digest"):
        run_job(other, source, tmp_path / "out", Silent())
    resized = Encoder(SPEC.at_image_size(28), encoder.params)
    with pytest.raises(jj.JobError, match="image_size: 56 there, 28 now"):
        run_job(resized, source, tmp_path / "out", Silent())
    (tmp_path / "out" / "manifest.json").write_text("{")
    with pytest.raises(jj.JobError, match=r"manifest\.json cannot be read"):
        run_job(encoder, source, tmp_path / "out", Silent())
    # Without it nobody knows whose parts these are.
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(jj.JobError, match=r"holds part-\d+\.parquet and no manifest\.json"):
        run_job(other, source, tmp_path / "out", Silent())


def test_another_input_with_the_same_names_is_refused(encoder: Encoder, pictures: Path, tmp_path: Path):
    run_job(encoder, open_source(pictures), tmp_path / "out", Silent())
    twin = tmp_path / "twin"
    shutil.copytree(pictures, twin)
    with pytest.raises(jj.JobError, match=f"input: .*{pictures.name}' there, .*twin' now"):
        run_job(encoder, open_source(twin), tmp_path / "out", Silent())
    # The same folder by another name is the same input.
    again = run_job(encoder, open_source(pictures / ".." / pictures.name), tmp_path / "out", Silent())
    assert again.resumed == 20


def test_temporary_files_of_others_who_still_write_are_left_alone(encoder: Encoder, pictures: Path, tmp_path: Path):
    output = tmp_path / "out"
    output.mkdir()
    host, part = socket.gethostname(), "part-00000.parquet"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    old, writing, killed, elsewhere = (
        output / f".{part}.{owner}.tmp"
        for owner in ("far-1", f"{host}-{os.getppid()}", f"{host}-{dead.stdout.strip()}", "near-1")
    )
    for path in (old, writing, killed, elsewhere):
        path.touch()
    os.utime(old, (0, 0))
    run_job(encoder, open_source(pictures), output, Silent())
    assert sorted(output.rglob("*.tmp")) == sorted([writing, elsewhere])


def test_a_selection_and_the_whole_are_two_jobs(encoder: Encoder, pictures: Path, tmp_path: Path):
    everything = open_source(pictures)
    some = everything.only(everything.keys[3:0:-1])
    assert (len(some.keys), some.read(0)) == (3, everything.read(3))
    run_job(encoder, some, tmp_path / "some", Silent())
    assert table(tmp_path / "some")["key"].to_pylist() == list(everything.keys[3:0:-1])
    with pytest.raises(jj.JobError, match="belongs to another job"):
        run_job(encoder, everything, tmp_path / "some", Silent())
    with pytest.raises(jj.JobError, match="belongs to another job"):
        run_job(encoder, everything.only(everything.keys[1:4]), tmp_path / "some", Silent())
    run_job(encoder, everything, tmp_path / "all", Silent())
    with pytest.raises(jj.JobError, match="belongs to another job"):
        run_job(encoder, some, tmp_path / "all", Silent())
    with pytest.raises(jj.ArgumentError, match=r"keys has '.*' twice"):
        everything.only([everything.keys[0]] * 2)


def test_a_selection_is_resumed_when_one_of_it_has_vanished(encoder: Encoder, pictures: Path, tmp_path: Path):
    shutil.copytree(pictures, tmp_path / "pictures")
    everything = open_source(tmp_path / "pictures")
    chosen = list(everything.keys[:4])
    run_job(encoder, everything.only(chosen), tmp_path / "out", Silent(), JobOptions(shard_size=2))
    next((tmp_path / "out" / "scores").glob("part-00000*")).unlink()
    (tmp_path / "pictures" / chosen[0]).unlink()
    left = open_source(tmp_path / "pictures").only(chosen)
    run_job(encoder, left, tmp_path / "out", Silent(), JobOptions(shard_size=2))
    assert table(tmp_path / "out")["key"].to_pylist() == chosen[1:]
    (failure,) = pq.read_table(tmp_path / "out" / "failures.parquet").to_pylist()
    assert failure["key"] == chosen[0]
    assert "has vanished since" in failure["reason"]
    with pytest.raises(jj.ArgumentError, match="1 of 4 keys are not in the input"):
        run_job(encoder, left, tmp_path / "new", Silent())


def test_a_table_that_lacks_parts_is_not_called_complete(encoder: Encoder, pictures: Path, tmp_path: Path):
    shutil.copytree(pictures, tmp_path / "in")
    (tmp_path / "in" / "zz.png").write_bytes(b"broken")
    source, output = open_source(tmp_path / "in"), tmp_path / "out"
    run_job(encoder, source, output, Silent(), JobOptions(shard_size=8))
    complete = json.loads((output / "manifest.json").read_text())["complete"]

    class Killed(BaseException):
        pass

    class Killer(Silent):
        def note(self, message: str) -> None:
            raise Killed

    with pytest.raises(Killed):
        run_job(encoder, source, output, Killer(), JobOptions(shard_size=8, retry_failed=True))
    assert (complete, json.loads((output / "manifest.json").read_text())["complete"]) == (True, False)
    assert len(list((output / "scores").glob("part-*.parquet"))) == 2
    assert run_job(encoder, source, output, Silent(), JobOptions(shard_size=8)).failed == 1
    assert json.loads((output / "manifest.json").read_text())["complete"]


def test_a_finished_job_does_nothing_again(encoder: Encoder, pictures: Path, tmp_path: Path):
    source = open_source(pictures)
    run_job(encoder, source, tmp_path / "out", Silent())
    watcher = Silent()
    summary = run_job(encoder, source, tmp_path / "out", watcher)
    assert watcher.reports == []
    assert (summary.resumed, summary.scored) == (20, 20)


def test_an_image_that_overflows_is_recorded_not_scored(pictures: Path, tmp_path: Path):
    params = initialize_params(SPEC.vit, seed=0)
    params["position_embedding"] = params["position_embedding"] * float("inf")
    source = open_source(pictures)
    summary = run_job(Encoder(SPEC, params), source, tmp_path / "out", Silent())
    assert (summary.scored, summary.failed) == (0, 20)
    reasons = set(pq.read_table(tmp_path / "out" / "failures.parquet")["reason"].to_pylist())
    assert len(reasons) == 1
    assert "overflows" in reasons.pop()


@pytest.mark.parametrize(("records", "size"), [(1, 8), (32, 8), (1000, 16), (10_000, 157), (10_000_000, 1024)])
def test_shards_are_few_and_small(records: int, size: int):
    assert default_shard_size(records) == size


def test_impossible_options_are_named(encoder: Encoder, pictures: Path, tmp_path: Path):
    source = open_source(pictures)
    with pytest.raises(jj.ArgumentError, match="batch_size=0"):
        run_job(encoder, source, tmp_path / "out", Silent(), JobOptions(batch_size=0))
    # Before a directory is pinned to it, in which the right command would be refused.
    with pytest.raises(jj.ArgumentError, match="tolerance=0 must be positive"):
        run_job(encoder, source, tmp_path / "out", Silent(), JobOptions(ScoreOptions(tolerance=0)))
    with pytest.raises(jj.ArgumentError, match="'colour'"):
        run_job(encoder, source, tmp_path / "out", Silent(), JobOptions(columns=("colour",)))
    with pytest.raises(jj.ArgumentError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(jj.ArgumentError, match="holds no image"):
        open_source(tmp_path / "empty")


def test_keys_are_stable_text(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "B.JPG").touch()
    (tmp_path / "é.png").touch()
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    with open(bytes(tmp_path) + b"/\xff.png", "wb"):
        pass
    assert open_source(to_path(tmp_path)).keys == ["\\xff.png", "a/B.JPG", "loop", "é.png"]
