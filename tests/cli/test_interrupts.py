"""Ctrl-C ends a command wherever it comes."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jepa_jax.cli.interrupts import heed_interrupts


def test_an_interrupt_in_a_callback_of_the_collector_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back in the end
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted: list[str] = []

    def callback(phase: str, info: dict[str, int]) -> None:
        if not interrupted:
            interrupted.append(phase)
            raise KeyboardInterrupt

    heed_interrupts()
    gc.callbacks.append(callback)
    try:
        with pytest.raises(KeyboardInterrupt):
            _collect_and_go_on()
    finally:
        gc.callbacks.remove(callback)
        signal.signal(signal.SIGINT, before)
    assert interrupted == ["start"]
    assert not capsys.readouterr().err


def _collect_and_go_on() -> None:
    gc.collect()
    time.sleep(30)


def test_an_interrupt_while_the_program_loads_prints_no_traceback(tmp_path: Path):
    """A package that it imports first is one that never ends, and says when it has begun."""
    (tmp_path / "typer.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    # As with -m; but a shell's job may have been told to ignore the signal.
    command = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('jepa_jax', run_name='__main__', alter_sys=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command, "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"loading\n"
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert (said, errors) == (b"", b"")
