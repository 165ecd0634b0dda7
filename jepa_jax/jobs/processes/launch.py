"""Several processes of one job: those of a TPU pod, and those that are started here."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import jax

from jepa_jax.errors import JobError
from jepa_jax.jobs.processes.gpus import gpus_here, shares
from jepa_jax.jobs.processes.team import RUN, Team, team_of
from jepa_jax.scoring.memory import PROCESSES

LAUNCHED = "JEPA_JAX_LAUNCHED"
"""Set in processes that `launch_here` started: their standard input stays open as long as it lives."""

GRACE = 60.0
"""Seconds that the other processes get to write what is whole after one has failed. A signal sets no such limit."""


@contextlib.contextmanager
def together(
    num_processes: int | None = None, process_id: int | None = None, pod: bool | None = None
) -> Iterator[Team]:
    """While entered, this process is one of several; must come before any use of JAX.

    Only on a TPU pod does JAX itself have to know: its hosts are one machine, and `jax.distributed` brings them
    together. All others share the output directory alone.

    Args:
        num_processes: how many there are; by default as SLURM says, or one.
        process_id: which of them this is, from 0.
        pod: whether these are the hosts of a TPU pod; by default where a TPU is and nothing is given.

    Raises:
        ArgumentError: the two do not fit.
        JobError: the hosts of a pod cannot be reached.
    """
    team = team_of(num_processes, process_id)
    if LAUNCHED in os.environ:
        threading.Thread(target=_stop_with_launcher, name="launcher", daemon=True).start()
    if not (_on_tpu() and num_processes is None if pod is None else pod):
        yield team
        return
    # A host that dies must not take the others with it: they need nothing from it.
    with contextlib.suppress(AttributeError):
        jax.config.update("jax_enable_recoverability", True)
    try:
        jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise JobError(f"the hosts did not come together: {error}") from error
    try:
        yield Team(jax.process_index(), jax.process_count())
    finally:
        with contextlib.suppress(RuntimeError):
            jax.distributed.shutdown()


def _on_tpu() -> bool:
    """Whether this is a TPU virtual machine, which may be of a pod."""
    here = Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
    return find_spec("libtpu") is not None and here


def _stop_with_launcher() -> None:
    while os.read(0, 1):  # returns when the launcher is gone, however it went; sys.stdin would bar the way out
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def launch_here(count: int, arguments: Sequence[str]) -> int:
    """Run ``jepa-jax ARGUMENTS`` as several processes on this machine; returns the exit status of the whole.

    SIGTERM and SIGINT are passed on. When one process fails, the others are asked to stop as well.
    """
    command = [sys.executable, "-m", "jepa_jax", *arguments, "--num-processes", str(count)]
    common = {LAUNCHED: "1", PROCESSES: str(count), RUN: secrets.token_hex(6)}
    processes = [
        subprocess.Popen(
            [*command, "--process-id", str(i)],
            stdin=subprocess.PIPE,
            env=os.environ | common | own,
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
        )
        for i, own in enumerate(shares(gpus_here(), count))
    ]

    asked: list[int] = []  # signals that were passed on

    def pass_on(signum: int, frame: object = None) -> None:
        asked.append(signum)
        for process in processes:
            if process.poll() is None:
                process.send_signal(signum)

    before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _watch(processes, pass_on, asked)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _watch(processes: list[subprocess.Popen], pass_on: Callable[[int], None], asked: list[int]) -> int:
    """Wait for all; once one has failed, the others are asked to stop, unless they were: a second signal kills."""
    status, deadline = 0, float("inf")
    while any(process.poll() is None for process in processes):
        for i, process in enumerate(processes):
            if process.poll() and not status:
                status = process.returncode if process.returncode > 0 else 128 - process.returncode
                if not asked and any(other.poll() is None for other in processes):
                    print(f"Process {i} ended with status {status}; the others are asked to stop.", file=sys.stderr)
                    pass_on(signal.SIGTERM)
                    deadline = time.monotonic() + GRACE
        if time.monotonic() > deadline:
            pass_on(signal.SIGKILL)
        time.sleep(0.1)
    for process in processes:
        status = status or (process.returncode if process.returncode >= 0 else 128 - process.returncode)
    return status
