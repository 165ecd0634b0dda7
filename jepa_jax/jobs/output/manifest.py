"""The manifest of a job: read, written, and compared with another, so that a resumed job cannot mix two.

What a new one holds says `jepa_jax.jobs.pins`.
"""

from __future__ import annotations

import json
from typing import Any

from jepa_jax._version import __version__
from jepa_jax.errors import JobError
from jepa_jax.paths import AnyPath, read_bytes, write_whole

NAME = "manifest.json"
FORMAT_VERSION = 2


def input_place(manifest: dict[str, Any]) -> str | None:
    """Where a job's input is, local paths in full; `jepa_jax.images.open_source` opens it."""
    return manifest.get("pinned", {}).get("input")


def read_manifest(directory: AnyPath) -> dict[str, Any] | None:
    """The manifest of a directory, or None where no job has begun.

    Raises:
        JobError: there is one, but it cannot be read, or is of another format than this version's.
    """
    path = directory / NAME
    try:
        manifest = json.loads(read_bytes(path))
        if not isinstance(manifest["pinned"], dict):
            raise ValueError("'pinned' is no object")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise JobError(
            f"{path} cannot be read ({error.strerror or error}); once it can, the same command goes on."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} cannot be read ({error}); use a new output directory.") from error
    if (found := manifest.get("format_version")) != FORMAT_VERSION:
        raise JobError(
            f"{path} has format version {found!r}; jepa_jax {__version__} reads and writes version {FORMAT_VERSION}. "
            "Use the version of jepa_jax that began the job, or a new output directory."
        )
    return manifest


def write_manifest(directory: AnyPath, manifest: dict[str, Any]) -> None:
    """Write the manifest whole or not at all."""
    write_whole(directory / NAME, encoded(manifest))


def encoded(manifest: dict[str, Any]) -> bytes:
    """A manifest as its file holds it."""
    return (json.dumps(manifest, indent=2) + "\n").encode()


def require_same(directory: AnyPath, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to resume a job whose table would differ, naming every difference."""
    before, now = (
        {"noise": one.get("noise"), "extensions": one.get("extensions") or []} | one["pinned"] for one in (old, new)
    )
    differences = [
        f"{name}: {before.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if differences:
        raise JobError(
            f"output {directory} belongs to another job ({'; '.join(differences)}). Give the same model, input and "
            "options to resume it, or name a new output directory."
        )
