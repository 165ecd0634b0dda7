"""Bringing processes together before a job, and apart after it.

On SLURM and TPU pods JAX finds its peers by itself; elsewhere they are told where process 0 listens; and several
processes on one machine are started by `launch_here`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.jobs.gpus import gpus_here, shares
from jepa_jax.jobs.team import BEAT
from jepa_jax.scoring.memory import PROCESSES

LAUNCHED = "JEPA_JAX_LAUNCHED"
"""Set in processes that `launch_here` started: their standard input stays open as long as it lives."""

GRACE = 60.0
"""Seconds that the other processes get to write what is whole after one has failed. A signal sets no such limit."""

SILENCE = 3 * BEAT
"""Seconds without a sign of life from anyone after which process 0 leaves."""


def peers_expected() -> bool:
    """Whether this process is one of several of a SLURM step, or on a TPU virtual machine, which may be of a pod."""
    if os.environ.get("SLURM_STEP_NODELIST") and "SLURM_PROCID" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "1")) > 1
    on_tpu = Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
    return find_spec("libtpu") is not None and on_tpu


@contextlib.contextmanager
def together(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    automatic: bool | None = None,
) -> Iterator[None]:
    """While entered, this process is one of several (`jax.distributed`); must come before any use of JAX.

    Args:
        coordinator: HOST:PORT at which process 0 listens.
        num_processes: how many there are.
        process_id: which of them this is, from 0.
        automatic: whether JAX finds these three by itself; by default where `peers_expected` and none is given.

    Raises:
        ArgumentError: only some of the three are given; JobError: the others cannot be reached.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise ArgumentError("coordinator, num_processes and process_id belong together: give all three, or none.")
    if not any(given) and not (peers_expected() if automatic is None else automatic):
        yield
        return
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise ArgumentError(f"process_id={process_id} must be from 0 to {num_processes - 1}.")
    # A process that dies must not take the others with it: they need nothing from it.
    with contextlib.suppress(AttributeError):
        jax.config.update("jax_enable_recoverability", True)
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, cluster_detection_method="deactivate" if any(given) else None
        )
    except (RuntimeError, ValueError) as error:
        raise JobError(f"the processes did not come together: {error}") from error
    if LAUNCHED in os.environ:
        threading.Thread(target=_stop_with_launcher, name="launcher", daemon=True).start()
    try:
        yield
    finally:
        _part()


def _part() -> None:
    """Leave, the coordinator last: its service ends with it, and JAX kills whoever still listens.

    Others may have a long batch in hand. They show signs of life meanwhile; whoever was killed does not.
    """
    from jax._src import distributed  # as in team.py

    client: Any = distributed.global_state.client
    index, count = jax.process_index(), jax.process_count()
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        client.key_value_set(f"jepa_jax/left/{index}", "")
        said, since = None, time.monotonic()
        while index == 0 and len(client.key_value_dir_get("jepa_jax/left/")) < count:
            if (now := sorted(client.key_value_dir_get("jepa_jax/"))) != said:
                said, since = now, time.monotonic()
            elif time.monotonic() - since > SILENCE:
                break
            time.sleep(0.1)
        if index == 0:
            time.sleep(0.5)  # the others close their connections
        jax.distributed.shutdown()


def _stop_with_launcher() -> None:
    while os.read(0, 1):  # returns when the launcher is gone, however it went; sys.stdin would bar the way out
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def launch_here(count: int, arguments: Sequence[str]) -> int:
    """Run ``jepa-jax ARGUMENTS`` as several processes on this machine; returns the exit status of the whole.

    SIGTERM and SIGINT are passed on. When one process fails, the others are asked to stop as well.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "jepa_jax", *arguments, "--coordinator", address, "--num-processes", str(count)]
    processes = [
        subprocess.Popen(
            [*command, "--process-id", str(i)],
            stdin=subprocess.PIPE,
            env=os.environ | {LAUNCHED: "1", PROCESSES: str(count)} | own,
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
