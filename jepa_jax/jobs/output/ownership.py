"""Whose an output directory is: one job's, from its manifest on.

Two jobs may begin in one empty directory at the same moment. The manifest is created and never written over then
(`jepa_jax.paths.create`), so that one of them has the directory and the other one finds the first one's manifest
there.

Where a store cannot create what is not there yet, a process that is held up between its look and its writing may still
take a directory over, as may somebody who removes it. So every process compares the manifest, while it works, before
each of its parts and at the end; and each part says in its metadata of which job it is (`jepa_jax.jobs.output.parts`),
and counts in that job alone.
"""

from __future__ import annotations

import time
from typing import Any

from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.jobs.output.manifest import NAME, encoded, read_manifest, require_same
from jepa_jax.jobs.output.parts import job_parts
from jepa_jax.paths import AnyPath, PathLike, create, is_remote, make_output, require_named, to_path

WATCHED_EVERY = 5.0
"""Seconds between two looks at the manifest while no part is written."""

WRITABLE = ("s3", "gs", "az", "memory")
"""Object stores that a job may write to."""


def output_place(output: PathLike) -> AnyPath:
    """An output directory's path: a local one in full, an object store's as it is.

    Raises:
        ArgumentError: it is in a store that nothing installed here can write to.
    """
    text = str(output)
    require_named(text, "output")
    scheme = text.partition("://")[0]
    if is_remote(text) and scheme not in WRITABLE:
        known = ", ".join(f"{name}://" for name in WRITABLE)
        raise ArgumentError(f"output {text!r} must be a local directory or begin with {known}.")
    try:
        return to_path(text) if is_remote(text) else to_path(text).resolve()
    except ArgumentError as error:
        raise ArgumentError(f"output {error}") from error


def begin(directory: AnyPath, manifest: dict[str, Any]) -> dict[str, Any]:
    """Make a directory a job's, unless it is another's: the manifest that stands there is returned.

    Raises:
        JobError: the directory cannot be made, or holds parts that no manifest tells of.
    """
    make_output(directory)
    if parts := job_parts(directory):
        if (found := read_manifest(directory)) is not None:  # of a job that began a moment ago
            return found
        raise JobError(
            f"output {directory} holds {parts[0].name} and no manifest.json that says what it is; "
            "name a new output directory, or remove its parts."
        )
    if create(directory / NAME, encoded(manifest)):
        return manifest
    found = read_manifest(directory)
    return begin(directory, manifest) if found is None else found  # it was removed in this moment


class Ownership:
    """A job's hold on its directory.

    Args:
        directory: of the job.
        manifest: of the job, as it stands there.
    """

    def __init__(self, directory: AnyPath, manifest: dict[str, Any]):
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


def _gone(directory: AnyPath) -> str:
    if job_parts(directory):
        return (
            f"output {directory} has lost its manifest.json, and nothing tells what its parts are: name a new output "
            "directory, or remove its parts and give the same command."
        )
    return (
        f"output {directory} was removed while the job ran. If a disk or a network share went away, bring it back, "
        "and the same command resumes the job; otherwise the same command begins it anew."
    )
