"""Decoding in a thread of this process, which starts at once, as `worker.Worker` does it in another one."""

from __future__ import annotations

import queue
import threading
from typing import Any

from jepa_jax.images.decoding import Decoded, InputRecipe, decode_record
from jepa_jax.images.sources.records import Reader


class DecodingThread:
    """A thread that decodes. It is a daemon: one that hangs in a read does not keep the program from ending."""

    def __init__(self, reader: Reader, recipe: InputRecipe):
        self.fault = ""
        self._todo: queue.SimpleQueue[tuple[int, str, Any] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Decoded | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._serve, args=(reader, recipe), name="decoding", daemon=True).start()

    def decode(self, records: list[tuple[int, str, Any]], seconds: float | None = None) -> list[Decoded]:
        """As `Worker.decode`; the thread of a record that takes too long goes on, and is of no more use.

        Raises:
            EOFError: `stop` was called meanwhile.
        """
        found: list[Decoded] = []
        for record in records:
            self._todo.put(record)
            try:
                answer = self._done.get(timeout=seconds)
            except queue.Empty:
                self.fault = f"it took more than {seconds:g} s to be read and decoded"
                break
            if isinstance(answer, BaseException):
                raise answer
            found.append(answer)
        return found

    def stop(self) -> None:
        """Let the thread end after what it is doing, and whoever waits for it go on."""
        self._todo.put(None)
        self._done.put(EOFError("decoding thread was stopped"))

    def _serve(self, reader: Reader, recipe: InputRecipe) -> None:
        while (record := self._todo.get()) is not None:
            try:
                self._done.put(decode_record(*record, reader, recipe))
            except BaseException as error:  # nothing may be lost in a thread
                self._done.put(error)
