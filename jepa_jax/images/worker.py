"""A worker process that decodes images: run as a script, it answers its parent over one pipe until that closes.

It is started as a program of its own, neither forked (JAX runs threads) nor through `multiprocessing`, which
would run the user's script a second time; and a parent that is killed closes the pipe, so no worker outlives it.
Neither `jepa_jax` by itself nor `jepa_jax.images` loads JAX, which would cost a second and 200 MB per worker.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

HOME = Path(__file__).resolve().parents[2]
"""The folder that holds this package."""

CRASHES = frozenset(
    -number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
)
"""Statuses of a process that its own program ended: not those of one that a machine out of memory has killed."""

SECONDS_TO_END = 5.0
"""How long a process that was killed is waited for."""


class Worker:
    """A worker process, as its parent sees it."""

    def __init__(self, reader: Any, recipe: Any):
        self.fault = ""
        self._ready = False
        self._pipe, theirs = Pipe()
        with theirs:
            # -P: the script's own folder is no place to import from. A session of its own: Ctrl-C is the parent's.
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        with self._alive():
            _send(self._pipe, (reader, recipe))

    def decode(self, records: list[tuple[int, str, Any]], seconds: float | None = None) -> list[Any]:
        """Have some records (index, key, locator) decoded.

        Args:
            records: in this order.
            seconds: that each may take; None is any time.

        Returns:
            A `Decoded` for each. Where one has taken too long or has crashed the process, those before it: the process
            is of no more use then, and ``fault`` says why.

        Raises:
            EOFError: the process has died, and no record is to blame.
        """
        found: list[Any] = []
        with self._alive():
            _send(self._pipe, records)
            if not self._ready:  # it has to import its libraries first
                self._ready = _receive(self._pipe)
        while len(found) < len(records):
            with self._alive():
                answered = self._pipe.poll(seconds)
            if not answered:
                self.fault = f"it took more than {seconds:g} s to be read and decoded"
                break
            try:
                with self._alive():
                    found.append(_receive(self._pipe))
            except EOFError:
                status = self._process.returncode
                if status not in CRASHES:
                    raise
                self.fault = f"its decoder crashed ({signal.Signals(-status).name})"
                break
        return found

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:  # OSError: it died within an answer
            self._wait()
            raise EOFError(
                f"worker process {self._process.pid} died with status {self._process.returncode}"
            ) from error

    def _wait(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_END)

    def stop(self) -> None:
        """End the process, whatever it is doing; one that waits for a device that is away may outlive this."""
        self._process.kill()
        self._wait()
        self._pipe.close()


def _send(pipe: Connection, message: Any) -> None:
    """As `Connection.send`, which pickles into a view of an `io.BytesIO`: Python 3.12.1 crashes when that is garbage.

    It becomes garbage where the other process is dead: the error's traceback holds the view, and is part of a cycle.
    A view of bytes does no harm.
    """
    pipe.send_bytes(pickle.dumps(message))


def _receive(pipe: Connection) -> Any:
    """As `Connection.recv`, for the same reason."""
    return pickle.loads(pipe.recv_bytes())


def _serve(pipe: Connection) -> None:
    from jepa_jax.images.decoding import decode_record

    try:
        reader, recipe = _receive(pipe)
        _send(pipe, True)
        while True:
            for index, key, locator in _receive(pipe):
                _send(pipe, decode_record(index, key, locator, reader, recipe))
    except (EOFError, ConnectionError):
        return  # the parent is done, or dead


def _import_the_parents_package() -> None:
    """Import this very `jepa_jax`, wherever the parent found it; all else is looked for where Python looks."""
    sys.path.insert(0, str(HOME))
    importlib.import_module("jepa_jax")
    sys.path.remove(str(HOME))


if __name__ == "__main__":
    # A scheduler sends SIGTERM to all processes of a job: the parent decides when the workers stop.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such images are refused with a reason
    _import_the_parents_package()
    with Connection(int(sys.argv[1])) as pipe:
        _serve(pipe)
