"""The processes of one job, which talk through JAX's coordination service and the output directory alone.

Process 0, the coordinator, decides what is missing, and everyone takes every n-th of that. No device ever waits for
another process; a few words go through the service's key-value store:

    plan        from the coordinator: what is missing, or why there is no job
    status/I    from process I, at its end: that it is done, or why it stopped
    alive/I     from process I: a number that counts up
    end         from the coordinator: the summary, or why there is none
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from jepa_jax.errors import JobError

LOST_AFTER = 100.0
"""Seconds without a sign of life after which a process counts as lost; JAX's own limit is the same."""

BEAT = 2.0
"""Seconds between two signs of life."""

_PAUSE = 0.2
_jobs = itertools.count()


class Team:
    """A process among the others; one alone needs no service.

    Args:
        index: of this process.
        count: of processes.
        client: JAX's coordination client, or None for one process.
    """

    def __init__(self, index: int = 0, count: int = 1, client: Any = None):
        self.index, self.count = index, count
        self._client = client
        # Jobs of one session have different names: all processes begin them in the same order.
        self._prefix = f"jepa_jax/{next(_jobs) if client is not None else 0}/"
        self._checked = time.monotonic()
        self._ended = threading.Event()
        if client is not None:
            threading.Thread(target=self._show_life, name="alive", daemon=True).start()

    @classmethod
    def current(cls) -> Team:
        """The processes that `jax.distributed.initialize` brought together, or this one alone."""
        if not jax.distributed.is_initialized() or jax.process_count() == 1:
            return cls()
        from jax._src import distributed  # JAX has no public way to its key-value store

        return cls(jax.process_index(), jax.process_count(), distributed.global_state.client)

    @property
    def coordinates(self) -> bool:
        """Whether this process is the coordinator."""
        return self.index == 0

    def publish(self, key: str, value: dict[str, Any]) -> None:
        """Let everyone know."""
        if self._client is not None:
            self._client.key_value_set(self._prefix + key, json.dumps(value), allow_overwrite=True)

    def wait_for(self, key: str, interrupted: Callable[[], None]) -> dict[str, Any]:
        """What the coordinator says under this key, whenever it says it; ``interrupted`` may raise meanwhile.

        Raises:
            JobError: it says that the job has failed.
        """
        while True:
            interrupted()
            if key in (known := self._read()):
                break
            time.sleep(_PAUSE)
        value = json.loads(known[key])
        if "error" in value:
            raise JobError(f"process 0 stopped: {value['error']}")
        return value

    def check(self) -> None:
        """Raise JobError if another process has stopped; asks once a second."""
        if self._client is not None and time.monotonic() - self._checked > 1:
            self._checked = time.monotonic()
            self._raise_if_stopped(self._read())

    def done(self) -> None:
        """Say that this process has done its part."""
        self.publish(f"status/{self.index}", {"done": True})

    def failed(self, reason: str) -> None:
        """Say why this process stops, so that the others do as well."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # nobody is left to tell; the reason itself is not lost
            self.publish(f"status/{self.index}", {"error": reason})
            if self.coordinates:
                for key in ("plan", "end"):
                    self.publish(key, {"error": reason})

    def end(self) -> None:
        """Show no further sign of life."""
        self._ended.set()

    def wait_for_all(self, interrupted: Callable[[], None]) -> None:
        """The coordinator waits until every process has done its part; ``interrupted`` may raise meanwhile.

        Raises:
            JobError: one stopped, or shows no sign of life.
        """
        heard: dict[int, tuple[str | None, float]] = {}
        while self._client is not None:
            interrupted()
            known = self._read()
            self._raise_if_stopped(known)
            waiting = [i for i in range(self.count) if f"status/{i}" not in known]
            if not waiting:
                return
            now = time.monotonic()
            for i in waiting:
                sign = known.get(f"alive/{i}")
                if i not in heard or heard[i][0] != sign:
                    heard[i] = (sign, now)
                elif now - heard[i][1] > LOST_AFTER:
                    raise JobError(
                        f"process {i} has shown no sign of life for {LOST_AFTER:.0f} s and is taken to be lost. "
                        "Whole parts are kept: the same command, with any number of processes, resumes the job."
                    )
            time.sleep(_PAUSE)

    def _show_life(self) -> None:
        for beat in itertools.count():
            try:
                self.publish(f"alive/{self.index}", {"beat": beat})
            except jax.errors.JaxRuntimeError:
                return  # the service is gone, and JAX itself says so
            if self._ended.wait(BEAT):
                return

    def _read(self) -> dict[str, str]:
        try:
            pairs = self._client.key_value_dir_get(self._prefix)
        except jax.errors.JaxRuntimeError as error:
            raise JobError(
                f"process 0 cannot be reached any more ({str(error).splitlines()[0]}). "
                "Whole parts are kept: the same command resumes the job."
            ) from error
        return {key.removeprefix(self._prefix): value for key, value in pairs}

    def _raise_if_stopped(self, known: dict[str, str]) -> None:
        for i in range(self.count):
            status = json.loads(known.get(f"status/{i}", "{}"))
            if "error" in status and i != self.index:
                raise JobError(f"process {i} stopped: {status['error']}")
