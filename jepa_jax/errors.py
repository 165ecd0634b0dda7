"""Errors that a user can mend; each message names the argument, the value and the remedy.

The command line prints these without a traceback and exits with status 2.
"""


class JepaJaxError(Exception):
    """Base class of every error that jepa_jax raises on purpose."""


class ArgumentError(JepaJaxError, ValueError):
    """An argument has a value that cannot work."""


class CheckpointError(JepaJaxError, ValueError):
    """Weights or their description are missing, damaged, or not what they claim to be."""


class ImageError(JepaJaxError, ValueError):
    """One image cannot be decoded or preprocessed; a job records it and goes on."""


class BackendError(JepaJaxError, RuntimeError):
    """The installed JAX backend computes wrong numbers."""


class OutOfMemoryError(JepaJaxError, RuntimeError):
    """Not even the smallest piece of the work fits into memory."""


class JobError(JepaJaxError, RuntimeError):
    """A scoring job cannot start or go on."""
