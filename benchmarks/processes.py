"""Calling a function in a process of its own: for peak memory, device counts that are set at start, and time limits.

A target is named ``module:function``; arguments and result travel as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.places import ROOT


class ProcessFailed(RuntimeError):
    """A process that was called ended without a result; the message says why."""


def call(
    target: str,
    arguments: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    limit_seconds: float | None = None,
) -> Any:
    """Run ``module:function(**arguments)`` in a fresh process and return its result.

    Raises:
        ProcessFailed: it raised, was killed, or ran past the limit.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks.processes", target, json.dumps(arguments), str(answer)]
        # With a limit it leads a group of its own, which ends with it; without, it belongs to its caller's group.
        limited = limit_seconds is not None
        variables = os.environ | dict(environment or {})
        process = subprocess.Popen(command, cwd=ROOT, env=variables, start_new_session=limited)
        try:
            status = process.wait(limit_seconds)
        except subprocess.TimeoutExpired as error:
            raise ProcessFailed(f"it ran past its limit of {limit_seconds:.0f} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                if limited:
                    _kill_group(process.pid)  # with whatever it started itself
                else:
                    process.kill()
            process.wait()
        if not answer.is_file():
            raise ProcessFailed(f"it ended with status {status}" + (" (no memory?)" if status == -9 else ""))
        result = json.loads(answer.read_text())
        if "error" in result:
            raise ProcessFailed(result["error"])
        return result["value"]


def _kill_group(leader: int) -> None:
    """End a group of processes, and see them gone: dying ones keep memory and cores from the next measurement."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if process.pid != leader and os.getpgid(process.pid) == leader:
                members.append(process)
    os.killpg(leader, signal.SIGKILL)
    psutil.wait_procs(members, timeout=10)


def devices_environment(count: int) -> dict[str, str]:
    """What a process needs at its start to see so many CPU devices.

    Devices share XLA's threads; with fewer than two each they can wait for one another for ever.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {"XLA_FLAGS": flags.strip(), "NPROC": str(max(16, 2 * count)), "JAX_PLATFORMS": "cpu"}


def resolve(target: str) -> Any:
    """The function that ``module:function`` names."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """Be the process that `call` starts."""
    target, arguments, answer = sys.argv[1:]
    try:
        result = {"value": resolve(target)(**json.loads(arguments))}
    except Exception as error:  # whatever it was, the caller is told
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    Path(answer).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
