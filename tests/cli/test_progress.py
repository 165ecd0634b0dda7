"""What is shown of a job: 80 columns, lines of a log at a bounded pace, and what an interruption waits for."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from jepa_jax.cli.progress import JsonProgress
from jepa_jax.jobs import ShardReport
from jepa_jax.jobs.progress.console import PACE, SILENCE, ConsoleProgress, Quiet, duration
from jepa_jax.jobs.rows.stream import DeviceClock
from jepa_jax.jobs.stopping import JobInterrupted, StopSignals

REPORT = ShardReport("part-00000-of-00001.parquet", 0, 1, 0, 0, 1, 0, 1.0, 0.5)


class Clock:
    """A time that the test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(progress: ConsoleProgress, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(progress._lines())
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("total", [10, 12_345_678_901])
def test_a_terminal_is_never_too_narrow(width: int, total: int):
    clock = Clock()
    progress = ConsoleProgress(Console(file=io.StringIO(), force_terminal=True, width=width), clock)
    progress.start(total, total // 2)
    progress.doing("compiling for batches of 64")
    clock.now = 12.0
    (first, second) = shown(progress, width)
    assert "scoring" in first
    assert "compiling for batches of 64: 12 s" in second
    clock.now = 100.0
    for _ in range(3):
        clock.now += 10
        progress.advance(1234, 123, 0.97)
    lines = shown(progress, width)
    assert len(lines) == 2
    assert all(cell_len(line) <= width for line in lines)
    if width >= 80:
        assert "in all), " in lines[1]
        assert " left, " in lines[1]
        assert lines[1].rstrip().endswith("369 failed, device busy 97%")


def test_a_log_is_told_every_half_minute_and_after_a_part_but_not_more_often():
    clock, stream = Clock(), io.StringIO()
    progress = ConsoleProgress(Console(file=stream, width=80), clock)
    progress.start(1000, 0)
    progress.doing("compiling for batches of 64")
    assert stream.getvalue().splitlines() == ["Compiling for batches of 64 ..."]
    spoken = []
    for second in range(1, 301):
        clock.now = float(second)
        if second > 100:
            progress.advance(1, 0, 0.5)
        if second > 200:
            progress.shard_written(REPORT)
        if progress.due():
            spoken.append(second)
            progress._say(progress.line())
    gaps = np.diff([0, *spoken])
    assert list(gaps[:6]) == [SILENCE] * 6
    assert set(gaps[7:]) == {PACE}
    lines = stream.getvalue().splitlines()[1:]
    assert lines[0] == "compiling for batches of 64: 30 s"
    assert lines[-1].startswith("196/1,000 (20%): 1 img/s (")
    assert lines[-1].endswith("device busy 50%")


def test_notebooks_and_dumb_terminals_get_lines(monkeypatch: pytest.MonkeyPatch):
    assert ConsoleProgress(Console(file=io.StringIO(), force_terminal=True))._live
    assert not ConsoleProgress(Console(file=io.StringIO(), force_jupyter=True))._live
    monkeypatch.setenv("TERM", "dumb")
    assert not ConsoleProgress(Console(file=io.StringIO(), force_terminal=True))._live


@pytest.mark.parametrize("terminal", [True, False])
def test_it_starts_and_ends(terminal: bool):
    stream = io.StringIO()
    with ConsoleProgress(Console(file=stream, force_terminal=terminal, width=80)) as progress:
        progress.start(20, 5)
        progress.doing("decoding")
        progress.advance(10, 0, 1.0)
        progress.advance(0, 5, 1.0)
        progress.shard_written(REPORT)
        progress.note("Said [aloud].")
    said = stream.getvalue()
    assert "Resuming: 5 of 20 records were done before." in said
    assert "Said [aloud]." in said
    assert "20/20 (100%)" in said or not terminal


def test_json_lines_hold_parts_and_notes():
    stream = io.StringIO()
    progress = JsonProgress(Quiet(), stream)
    progress.start(1, 0)
    progress.doing("compiling")
    progress.advance(1, 0, 0.5)
    progress.note("Decoding was the bottleneck.")
    progress.shard_written(REPORT)
    note, part = map(json.loads, stream.getvalue().splitlines())
    assert note.pop("time") <= part["time"]
    assert note == {"note": "Decoding was the bottleneck."}
    assert part["part"] == REPORT.part


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3 s"), (99.6, "2 min"), (5000, "83 min"), (18_180, "5 h 03 min"), (3e5, "3 d 11 h")]
)
def test_durations_read_well(seconds: float, words: str):
    assert duration(seconds) == words


def test_a_signal_says_at_once_what_is_waited_for():
    said: list[str] = []
    told = threading.Event()

    def say(message: str) -> None:
        said.append(message)
        told.set()

    with StopSignals(say) as signals:
        signals.waiting_for = lambda: "the batch on the device"
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.wait(10)
        with pytest.raises(JobInterrupted):
            signals.raise_if_received()
    assert said == ["SIGTERM received: waiting for the batch on the device; a second signal stops at once."]


def test_what_is_on_the_device_is_known():
    clock, go, there = DeviceClock(), threading.Event(), threading.Event()
    images = np.zeros((8, 4, 4, 3), np.float32)

    def step(batch: np.ndarray) -> Any:
        there.set()
        go.wait(10)

    assert "nothing is on the device" in clock.under_way()
    for count in (8, 5):
        clock.expect(count)
    assert clock.under_way().startswith("the 2 batches on the device (13 images, the first ones")
    device: Any = step
    thread = threading.Thread(target=clock.run, args=(device, images))
    thread.start()
    assert there.wait(10)
    assert clock.under_way().startswith("the 2 batches on the device (13 images")
    go.set()
    thread.join()
    assert clock.under_way() == "the batch on the device (5 images, about 1 s)"
    clock.run(device, images)
    assert "nothing is on the device" in clock.under_way()


def test_decoding_is_named_where_the_device_waited_for_it(monkeypatch: pytest.MonkeyPatch):
    clock = DeviceClock()
    monkeypatch.setattr("jepa_jax.jobs.rows.stream.cores", lambda: 4)
    clock._begun, clock._busy = time.monotonic() - 100, 50.0
    assert "busy 50% of the time; more --workers than 2 would help, of 4 cores" in clock.verdict(2)
    assert "all 4 cores of this machine may decode already, with --workers 4" in clock.verdict(4)
    clock._busy = 95.0
    assert not clock.verdict(2)
    clock._begun, clock._busy = time.monotonic() - 2, 0.5
    assert not clock.verdict(2)


def test_an_interrupted_command_names_the_batches(tmp_path: Path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(400):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "in" / f"{number}.png")
    command = [sys.executable, "-m", "jepa_jax", "score", tmp_path / "in", "--output", tmp_path / "out"]
    command += ["--batch-size", "2", "--shard-size", "2", "--workers", "1"]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Decoding and computing the first batch"):
                break
        while not list((tmp_path / "out").rglob("part-*.parquet")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert any(line.startswith("Compiling for batches of 2 ...") for line in lines)
    assert "SIGTERM received: waiting for " in rest
