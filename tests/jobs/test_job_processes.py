"""Several real processes, and faults from outside: one complete table whatever happens."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import psutil
import pytest
from job_kills import ScriptedKills, kill_at_random, require_equal
from jobs_shared import failures, run_score, score_command, table, tiny_encoder
from makes import TINY
from PIL import Image

import jepa_jax as jj
from jepa_jax.encoders import save_encoder
from jepa_jax.images.decoding import InputRecipe
from jepa_jax.images.sources.records import read_file
from jepa_jax.images.worker import Worker

ONE_BY_ONE = ["--shard-size", "1", "--batch-size", "1"]
# Beside whatever flags the tests run with: programs that are compared are compiled alike.
TWO_DEVICES = {
    "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {os.environ.get('XLA_FLAGS', '')}",
    "NPROC": "8",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_encoder(tiny_encoder(), path)
    return path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A compilation cache, so that a process that starts again is quick: that of the run, where it has one."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return {}
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


def make_pictures(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(
            folder / f"{i:05d}.png", compress_level=1
        )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pictures(tmp_path_factory.mktemp("pictures"), 60)
    (folder / "broken.png").write_bytes(b"broken")
    return folder


def test_processes_and_devices_write_the_table_of_one(
    pictures: Path, checkpoint: Path, compiled: dict[str, str], tmp_path: Path
):
    common = [pictures, "--model", checkpoint, "--shard-size", "8", "--batch-size", "8", "--workers", "0"]
    alone = run_score(*common, "--output", tmp_path / "1", **compiled)
    assert alone.returncode == 0, alone.stderr
    expected = table(tmp_path / "1")
    assert len(expected) == 60
    for count in (2, 3):
        output = tmp_path / str(count)
        done = run_score(
            *common, "--output", output, "--processes", str(count), "--log-json", **compiled, **TWO_DEVICES
        )
        assert done.returncode == 0, done.stderr
        require_equal(table(output), expected)
        assert failures(output) == failures(tmp_path / "1")
        assert "60 images scored, 1 failed" in done.stdout
        # Every part was written once, by whoever was ready, and said so in a line.
        parts = re.findall(r'"part": "(part-\d+.parquet)".*"process": (\d)', done.stderr)
        assert sorted(part for part, _ in parts) == sorted(path.name for path in (output / "scores").glob("part-*"))
        assert {process for _, process in parts} <= {str(i) for i in range(count)}


def test_explicit_processes_come_together(pictures: Path, checkpoint: Path, compiled: dict[str, str], tmp_path: Path):
    common = [pictures, "--model", checkpoint, "--output", tmp_path / "out", "--num-processes", "2"]
    done = run_score(*common)
    assert done.returncode == 2
    assert "belong together" in done.stderr
    done = run_score(*common, "--process-id", "2")
    assert "must be from 0 to 1" in done.stderr


def test_the_step_holds_no_collective(tmp_path: Path):
    program = """if True:
        from jobs_shared import tiny_encoder
        from jepa_jax.jobs import JobOptions
        from jepa_jax.jobs.rows.exact import ExactStep
        import jax
        assert len(jax.local_devices()) == 2
        step = ExactStep(tiny_encoder(), JobOptions(), 8)
        text = step.compile().text()
        for kind in ("all-reduce", "all-gather", "all-to-all", "collective-", "reduce-scatter", "send(", "recv("):
            assert kind not in text, kind
        assert "f32[4,56,56,3]" in text, "each device computes half of the batch"
        print("two halves")
    """
    environment = os.environ | TWO_DEVICES | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "two halves", done.stderr


def test_too_few_threads_for_the_devices_is_an_error_not_a_deadlock(pictures: Path, checkpoint: Path, tmp_path: Path):
    environment = TWO_DEVICES | {"NPROC": "2"}
    done = run_score(pictures, "--model", checkpoint, "--output", tmp_path / "out", **environment)
    assert done.returncode == 2
    assert "NPROC=4" in done.stderr


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_job_in_order(
    signum: int, processes: int, pictures: Path, checkpoint: Path, compiled: dict[str, str], tmp_path: Path
):
    output = tmp_path / "out"
    command = score_command(
        *(pictures, "--model", checkpoint, "--output", output, *ONE_BY_ONE, "--processes", str(processes))
    )
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | compiled, text=True)
    wait_for_parts(output, 3, process)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 128 + signum
    assert f"{signal.Signals(signum).name} received" in errors
    assert "The same command resumes the job" in errors
    assert "Traceback" not in errors
    assert not list(output.rglob("*.tmp"))
    written = {path: path.stat().st_mtime_ns for path in (output / "scores").glob("part-*.parquet")}
    assert 3 <= len(written) < 61
    again = subprocess.run(command, env=os.environ | compiled, capture_output=True, text=True, check=True)
    assert processes > 1 or "Resuming" in again.stdout  # of several processes, each shows its own share
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert len(table(output)) == 60


def wait_for_parts(output: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while len(list((output / "scores").glob("part-*.parquet"))) < count:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline, "no part was written"
        time.sleep(0.005)


def decoding_workers(parent: int) -> list[psutil.Process]:
    """Children that run worker.py; any other may end while its command line is read."""
    found = []
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "worker.py" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_a_worker_that_dies_is_an_error_and_the_job_resumes(
    pictures: Path, checkpoint: Path, compiled: dict[str, str], tmp_path: Path
):
    output = tmp_path / "out"
    command = score_command(
        pictures, "--model", checkpoint, "--output", output, "--shard-size", "1", "--batch-size", "1"
    )
    command += ["--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | compiled, text=True)
    workers = []
    while not workers:
        assert process.poll() is None
        workers = decoding_workers(process.pid)
    workers[0].kill()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2, errors
    assert "worker process" in errors
    assert "the same command resumes" in errors
    subprocess.run(command, env=os.environ | compiled, capture_output=True, check=True)
    assert len(table(output)) == 60


def test_the_error_of_a_dead_worker_holds_no_view_of_a_buffer():
    """Of an `io.BytesIO`: the traceback is part of a cycle, and Python 3.12.1 crashes when that is collected."""
    worker = Worker(read_file, InputRecipe(TINY.preprocess))
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    with pytest.raises(EOFError, match="died with status -9") as caught:
        worker.decode([(0, "a", "a.png")])
    error: BaseException | None = caught.value
    held: list[object] = []
    while error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        held += [value for frame in frames for value in frame.f_locals.values()]
        error = error.__context__
    views = [value.obj for value in held if isinstance(value, memoryview)]
    assert all(isinstance(owner, bytes) for owner in views)
    worker.stop()


def test_a_full_disk_stops_a_job_that_then_resumes(
    pictures: Path, checkpoint: Path, compiled: dict[str, str], tmp_path: Path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small tmpfs; the file-size limit below is tested in any case")
    try:
        output = disk / "out"
        common = [pictures, "--model", checkpoint, "--shard-size", "2", "--batch-size", "8", "--save", "embedding"]
        done = run_score(*common, "--output", output, **compiled)
        assert done.returncode != 0
        assert "No space left on device" in done.stderr
        assert "make space, and give the same command again" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(output.rglob("*.tmp"))
        before = {path.name: path.stat().st_mtime_ns for path in (output / "scores").glob("part-*.parquet")}
        assert 0 < len(before) < 31
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        done = run_score(*common, "--output", output, **compiled)
        assert done.returncode == 0, done.stderr
        after = {path.name: path.stat().st_mtime_ns for path in (output / "scores").glob("part-*.parquet")}
        assert {name: after[name] for name in before} == before
        keys = table(output)["key"].to_pylist()
        assert keys == sorted(set(keys))
        assert len(keys) == 60
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_file_size_limit_is_a_full_disk(tmp_path: Path):
    from jepa_jax.paths import to_path, write_whole

    write_whole(to_path(tmp_path / "kept"), b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(jj.JobError, match=r"File too large.*make space"):
            write_whole(to_path(tmp_path / "kept"), bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"before"


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    pictures: Path, checkpoint: Path, compiled: dict[str, str], tmp_path: Path
):
    done = run_score(
        pictures, "--model", checkpoint, "--output", tmp_path / "out", "--dry-run", "--batch-size", "8", **compiled
    )
    assert done.returncode == 0, done.stderr
    for fact in ("61, of which 61", "8, of which 8", "8 images a step", "MB of decoded images", "first compile"):
        assert fact in done.stdout
    assert not (tmp_path / "out").exists()


def test_twenty_kills_and_changing_processes_lose_and_double_nothing(
    checkpoint: Path, compiled: dict[str, str], tmp_path: Path
):
    assert kill_at_random(tmp_path / "kills", checkpoint, compiled, times=20, seed=0) >= 20


def test_a_job_killed_at_any_change_of_its_directory_goes_on(compiled: dict[str, str], tmp_path: Path):
    with ScriptedKills(tmp_path / "kills", environment=compiled) as kills:
        assert [kills.kill_at(number) for number in (3, 5, 8, 11)] == [True] * 4
