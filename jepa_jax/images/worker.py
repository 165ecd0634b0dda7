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


class Worker:
    """A worker process, as its parent sees it."""

    def __init__(self, reader: Any, recipe: Any):
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

    def decode(self, records: list[tuple[int, str, Any]]) -> list[Any]:
        """Have some records (index, key, locator) decoded.

        Raises:
            EOFError: the process has died.
        """
        with self._alive():
            _send(self._pipe, records)
            return _receive(self._pipe)

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:  # OSError: it died within an answer
            raise EOFError(f"worker process {self._process.pid} died with status {self._process.wait()}") from error

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
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
        while True:
            records = _receive(pipe)
            _send(pipe, [decode_record(index, key, locator, reader, recipe) for index, key, locator in records])
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
