"""Whose an output directory is: one job's, from its manifest on.

Two jobs may begin in one empty directory at the same moment. The manifest is created and never written over then, so
that one of them has the directory and the other one finds the first one's manifest there:

- a local disk links a whole temporary file to the manifest's name, which fails where there is one, and never shows
  half a file;
- an object store is asked to put the object only if there is none (fsspec's ``mode="create"``: ``If-None-Match`` on
  S3, ``ifGenerationMatch=0`` on Google Cloud Storage);
- where renaming is all there is (no links, no conditional put), the manifest is written if there is none and read
  again `SETTLED` seconds later: the directory is theirs whose manifest stands there then.

A process that is held up for longer than that between its look and its writing may still take a directory over, as may
somebody who removes it. So every process compares the manifest, while it works, before each of its parts and at the
end; and each part says in its metadata of which job it is (`jepa_jax.jobs.writer`), and counts in that job alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import Any

import fsspec
from etils import epath

from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.jobs.manifest import NAME, encoded, read_manifest, require_same
from jepa_jax.jobs.writer import PARTS, temporary_beside, write_bytes_atomically

SETTLED = 3.0
"""Seconds after which the manifest in a directory is taken to be the last one of those that began there."""

WATCHED_EVERY = 5.0
"""Seconds between two looks at the manifest while no part is written."""

_NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EXDEV))

_SCHEMES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}
"""Object stores that paths may lie in, and the package that reads and writes each."""


def output_place(output: epath.PathLike) -> epath.Path:
    """An output directory's path: a local one in full, an object store's as it is.

    Raises:
        ArgumentError: it is in a store that nothing installed here can write to.
    """
    text = os.fspath(output)
    if "://" not in text:
        return epath.Path(text).resolve()
    scheme = text.partition("://")[0]
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ArgumentError(f"output {text!r} must be a local directory or begin with {known}.")
    try:
        fsspec.filesystem(scheme)
    except ImportError as error:
        raise ArgumentError(
            f"output {text!r} needs the package {_SCHEMES[scheme]} ({error}): pip install {_SCHEMES[scheme]}."
        ) from error
    return epath.Path(text)


def begin(directory: epath.Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Make a directory a job's, unless it is another's: the manifest that stands there is returned.

    Raises:
        JobError: the directory cannot be made, or holds parts that no manifest tells of.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(
            f"output {directory} cannot be made a directory ({error.strerror or error}); name another."
        ) from error
    if (part := next(iter(directory.glob(PARTS)), None)) is not None:
        if (found := read_manifest(directory)) is not None:  # of a job that began a moment ago
            return found
        raise JobError(
            f"output {directory} holds {part.name} and no manifest.json that says what it is; "
            "name a new output directory, or remove its parts."
        )
    if _create(directory / NAME, encoded(manifest)):
        return manifest
    found = read_manifest(directory)
    return begin(directory, manifest) if found is None else found  # it was removed in this moment


class Claim:
    """A job's hold on its directory.

    Args:
        directory: of the job.
        manifest: of the job, as it stands there.
    """

    def __init__(self, directory: epath.Path, manifest: dict[str, Any]):
        self.directory, self.manifest = directory, manifest
        self._looked = time.monotonic()

    def watch(self) -> None:
        """As `require`, every few seconds."""
        if time.monotonic() - self._looked > WATCHED_EVERY:
            self.require()

    def require(self) -> None:
        """Raise JobError if the directory is this job's no longer."""
        found = read_manifest(self.directory)
        self._looked = time.monotonic()
        if found is None:
            raise JobError(_gone(self.directory))
        try:
            require_same(self.directory, found, self.manifest)
        except JobError as error:
            raise JobError(f"{error} It was taken over while this job ran, which stops.") from error


def _gone(directory: epath.Path) -> str:
    if next(iter(directory.glob(PARTS)) if directory.exists() else iter(()), None) is not None:
        return (
            f"output {directory} has lost its manifest.json, and nothing tells what its parts are: name a new output "
            "directory, or remove its parts and give the same command."
        )
    return (
        f"output {directory} was removed while the job ran. If a disk or a network share went away, bring it back, "
        "and the same command resumes the job; otherwise the same command begins it anew."
    )


def _create(path: epath.Path, data: bytes) -> bool:
    """Create a file with this content, unless there is one: whether it was created."""
    if "://" in os.fspath(path):
        store = fsspec.filesystem(os.fspath(path).partition("://")[0], use_listings_cache=False)
        with contextlib.suppress(TypeError, ValueError, NotImplementedError):  # this store knows no conditional put
            try:
                store.pipe_file(os.fspath(path), data, mode="create")
            except FileExistsError:
                return False
            return path.read_bytes() == data
        return _write_and_see(path, data)
    with temporary_beside(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A network file system may have made the link and lost its answer: then the file has two names.
            return os.stat(temporary).st_nlink == 2
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _write_and_see(path, data)
    return True


def _write_and_see(path: epath.Path, data: bytes) -> bool:
    """As `_create`, where nothing can be made conditionally: written, and seen to have stayed."""
    if path.exists():
        return False
    write_bytes_atomically(path, data)
    time.sleep(SETTLED)
    return path.read_bytes() == data
