"""Standard output and standard error as they are: of any encoding, and closed by whoever has read enough.

What is shown is never the work itself: a command goes on and ends with its own status, whatever becomes of its words.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

from rich.console import Console


def print_anything() -> None:
    """From now on, characters that an encoding does not have are printed as escapes such as ``\\u753b``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def lose(stream: TextIO) -> None:
    """What is still printed there goes nowhere: nobody reads it any more."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class TolerantConsole(Console):
    """A console whose reader may close it, as ``| head -1`` does: the command goes on unheard."""

    def on_broken_pipe(self) -> None:
        """Rich's own would end the command with status 1."""
        self.quiet = True
        lose(sys.stderr if self.stderr else sys.stdout)
