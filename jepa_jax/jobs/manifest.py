"""The manifest of a job: everything that its table depends on, so that a resumed job cannot mix two."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from typing import Any

import jax
import PIL

from jepa_jax._version import __version__
from jepa_jax.encoders import Encoder
from jepa_jax.encoders.identity import pinned_form
from jepa_jax.encoders.layerwise import layer_numbers
from jepa_jax.errors import JobError
from jepa_jax.images.sources import Records, name_in_full
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.pinned import keys_digest
from jepa_jax.numerics.precision import Precision
from jepa_jax.paths import AnyPath, read_bytes, write_whole

NAME = "manifest.json"
FORMAT_VERSION = 2


def build_manifest(
    encoder: Encoder,
    source: Records,
    options: JobOptions,
    shard_size: int,
    noise: dict[Precision, float] | None,
) -> dict[str, Any]:
    """The manifest of a job.

    Under ``pinned`` stands what a resumed job must share; ``noise`` is what was measured; ``job`` is a digest of both,
    which each of the job's parts carries.
    """
    views = options.input_recipe(encoder.spec).views
    manifest = {
        "format_version": FORMAT_VERSION,
        "pinned": {
            "encoder": encoder.spec.name,
            "encoder_digest": encoder.digest,
            "image_size": encoder.spec.image_size,
            "preprocessing": pinned_form(encoder.spec.preprocess),
            "precision": options.score.precision,
            "tolerance": options.score.tolerance,
            "score_only": not options.score.spectrum,
            "input": name_in_full(source.name),  # another folder may hold files of the same names
            "records": len(source.keys),
            "keys_sha256": keys_digest(source.keys),
            "shard_size": shard_size,
            "columns": sorted(options.columns),
            "views": options.views,
            "save_dtype": options.save_dtype if options.columns else None,
            "jepa_jax": __version__,
            "jax": jax.__version__,
            "pillow": PIL.__version__,  # decodes and resizes
        }
        | ({} if views is None else {"view_seed": views.seed, "view_recipe": pinned_form(views.recipe)})
        | ({"noise_images": options.noise_images} if options.noise_images else {})
        | options.method
        | ({"layers": layer_numbers(options.score.layers, encoder.spec.vit.depth)} if options.score.layers else {})
        | ({"av": version("av")} if source.videos else {}),  # decodes
        "noise": noise,
        "encoder_spec": pinned_form(encoder.spec),
        "left_out": source.left_out,
        "device": jax.local_devices()[0].device_kind,
        "platform": platform.platform(),
        "complete": False,
    }
    manifest = json.loads(json.dumps(manifest))  # as it will be read back, for comparing
    return manifest | {"job": _digest([manifest["pinned"], manifest["noise"]])}


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


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
