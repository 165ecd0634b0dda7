"""A process that does the jobs it is told on its standard input, one JSON object a line, and says how each ended.

It is a real process that keeps what it compiled, so that two of them can begin dozens of jobs together. With
``die_at`` it kills itself at its n-th change to the output directory, as ``kill -9`` would.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PATHS = [path for path in sys.path if path]
WRITES = ("os.link", "os.rename", "os.mkdir", "os.remove")


class Contender:
    """One of these processes, seen from outside."""

    def __init__(self, **environment: str):
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)} | environment,
        )

    def begin(self, output: Path, images: Path, job: dict[str, Any], **more: Any) -> None:
        """Tell it a job: ``job`` as `encoder_and_options` takes it; ``at`` on the monotonic clock, if not now."""
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"output": str(output), "images": str(images), "job": job, **more}) + "\n"
        )
        self._process.stdin.flush()

    def outcome(self) -> dict[str, Any]:
        """How it ended: ``{"records": ...}`` or ``{"error": its class, "message": ...}``; killed, where it died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "killed", "status": self._process.wait()}

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def encoder_and_options(seed: int = 0, side: int = 56, **options: Any) -> tuple[Any, Any]:
    """A tiny encoder by its weights' seed and its input's side; ``precision``, ``spectrum``, `JobOptions`' fields."""
    from jepa_jax.jobs import Amortise, JobOptions
    from jepa_jax.scoring.options import ScoreOptions

    score = ScoreOptions(options.pop("precision", "float32"), spectrum=options.pop("spectrum", True))
    if "columns" in options:
        options["columns"] = tuple(options["columns"])
    if "amortise" in options:
        options["amortise"] = Amortise(**options["amortise"])
    defaults: dict[str, Any] = {"shard_size": 2, "batch_size": 2}
    return _encoder(seed, side), JobOptions(score=score, **defaults | options)


@functools.cache
def _encoder(seed: int, side: int) -> Any:
    from makes import TINY

    from jepa_jax.encoders import Encoder
    from jepa_jax.encoders.parameters import initialize_params

    preprocess = dataclasses.replace(TINY.preprocess, crop=side)
    spec = dataclasses.replace(TINY, preprocess=preprocess)
    return Encoder(spec, initialize_params(spec.vit, seed=seed))


def _die_at(number: int, output: str) -> None:
    """From now on, the n-th change below a directory is this process's last moment."""
    count, lock = 0, threading.Lock()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event in WRITES or (event == "open" and arguments[1] and set("wxa") & set(str(arguments[1])))
        if writes and output in str(arguments[0]):
            with lock:
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _serve() -> None:
    from jobs_shared import Silent

    from jepa_jax.errors import JepaJaxError
    from jepa_jax.jobs import open_source, run_amortised, run_job

    for line in sys.stdin:
        told = json.loads(line)
        encoder, options = encoder_and_options(**told["job"])
        source = open_source(told["images"])
        if "die_at" in told:
            _die_at(told["die_at"], told["output"])
        time.sleep(max(0.0, told.get("at", 0.0) - time.monotonic()))
        try:
            run = run_job if options.amortise is None else run_amortised
            said: dict[str, Any] = {"records": run(encoder, source, told["output"], Silent(), options).records}
        except JepaJaxError as error:
            said = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    _serve()
