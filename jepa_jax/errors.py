"""Errors that a user can fix; each message names the argument, the value and the remedy.

The command line prints these without a traceback and exits with status 2.
"""

import unicodedata

_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_INVISIBLE = frozenset(("Cc", "Cs", "Zl", "Zp"))


def printable(name: str) -> str:
    """A name as it may be shown: what moves a cursor, breaks a line or turns the direction of reading is escaped."""
    return "".join(
        c.encode("unicode_escape", "surrogatepass").decode()
        if c in _TURNS or unicodedata.category(c) in _INVISIBLE
        else c
        for c in name
    )


class JepaJaxError(Exception):
    """Base class of every error that jepa_jax raises on purpose."""


class ArgumentError(JepaJaxError, ValueError):
    """An argument, or what it names, cannot be used."""


class CheckpointError(JepaJaxError, ValueError):
    """Weights or their description are missing, damaged, or not what they claim to be."""


class ImageError(JepaJaxError, ValueError):
    """One image cannot be decoded or preprocessed; a job records it and goes on."""


class BackendError(JepaJaxError, RuntimeError):
    """The installed JAX backend computes wrong numbers."""


class OutOfMemoryError(JepaJaxError, RuntimeError):
    """Not even the smallest piece of the work fits into memory."""


class JobError(JepaJaxError, RuntimeError):
    """A job cannot start or go on: its directory, the machine, or an optional package that is missing."""
