"""An amortised score on disk: arrays as safetensors, beside a description in JSON whose digest covers all of it.

DIR/amortised.json        format version, encoder (name and digest), settings, digest; written last
DIR/arrays-DIGEST.safetensors
                          every array, by the names of parts and fields: ridge.weights, calibration.exact ...

Where several processes write one at the same time, the first description stands, and names its arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa_jax._version import __version__
from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.paths import AnyPath, create, is_remote, make_folder, names_in, read_bytes, to_path, write_whole

if TYPE_CHECKING:
    from jepa_jax.amortised.amortised import Amortised

FORMAT_VERSION = 1
DESCRIPTION = "amortised.json"
PARTS = {
    "standard": ("mean", "deviation"),
    "ridge": ("weights", "intercept", "penalty"),
    "distance": ("directions", "variances", "rest"),
    "local_scale": ("mean", "deviation", "weights", "intercept", "predicted", "least"),
    "calibration": ("exact", "predicted", "scale", "elsewhere"),
    "calibration_distances": ("values",),
}
SETTINGS = ("coverage", "alarm_rate", "seed")


def digest(head: Amortised) -> str:
    """SHA-256 over the encoder's digest, the settings and all arrays."""
    return _digest(head.encoder.digest, dataclasses.asdict(head.settings), _arrays(head))


def write(head: Amortised, directory: str | os.PathLike[str]) -> None:
    """See `Amortised.save`."""
    folder = to_path(directory)
    if names_in(folder) or (not is_remote(folder) and folder.is_file()):
        raise ArgumentError(f"directory {folder} is not empty; name a new one.")
    write_first(head, folder)


def stands(folder: AnyPath) -> bool:
    """Whether a folder holds one."""
    return DESCRIPTION in names_in(folder)


def write_first(head: Amortised, folder: AnyPath) -> bool:
    """Write it where none stands, and say whether it does now; another process may have been faster."""
    from safetensors.numpy import save

    make_folder(folder)
    digest = head.digest
    arrays = f"arrays-{digest[:12]}.safetensors"
    write_whole(folder / arrays, save(_arrays(head)))
    description = {
        "format_version": FORMAT_VERSION,
        "jepa_jax_version": __version__,
        "encoder": {"name": head.encoder.spec.name, "digest": head.encoder.digest},
        "settings": dataclasses.asdict(head.settings),
        "arrays": arrays,
        "digest": digest,
    }
    return create(folder / DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())


def read(directory: str | os.PathLike[str], encoder: Encoder) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings, and the fields of every part, of an amortised score of this encoder.

    Raises:
        ArgumentError: it is of another encoder.
        CheckpointError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    folder = to_path(directory)
    try:
        description = json.loads(read_bytes(folder / DESCRIPTION))
        version = description["format_version"]
        fitted, settings, written = description["encoder"], description["settings"], description["digest"]
        name, of_encoder = fitted["name"], fitted["digest"]
        values, path = [settings[name] for name in SETTINGS], folder / str(description["arrays"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION} cannot be read ({_said(error)}); fit it again.") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder / DESCRIPTION} has format version {version!r}; this jepa_jax reads version {FORMAT_VERSION}. "
            "Read it with the jepa_jax that wrote it, or fit it again."
        )
    if of_encoder != encoder.digest:
        raise ArgumentError(
            f"{folder} predicts scores of the encoder {name} ({str(of_encoder)[:12]}), and encoder is "
            f"{encoder.spec.name} ({encoder.digest[:12]}); give the same one, or fit another."
        )
    try:
        if path.parent != folder:
            raise ValueError("it names arrays outside its folder")
        arrays = load(read_bytes(path))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({_said(error)}); fit it again.") from error
    wanted = {f"{part}.{field}" for part, fields in PARTS.items() for field in fields}
    settings: dict[str, Any] = dict(zip(SETTINGS, values, strict=True))
    if arrays.keys() != wanted or _digest(of_encoder, settings, arrays) != written:
        raise CheckpointError(f"{folder} does not hold what its digest says; fit it again.")
    return settings, {part: {name: arrays[f"{part}.{name}"] for name in fields} for part, fields in PARTS.items()}


def _arrays(head: Amortised) -> dict[str, np.ndarray]:
    found = {}
    for part, fields in PARTS.items():
        value = getattr(head, part)
        for name in fields:
            array = value if part == "calibration_distances" else getattr(value, name)
            found[f"{part}.{name}"] = np.ascontiguousarray(array, np.float64).reshape(np.shape(array))
    return found


def _digest(of_encoder: str, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    state = hashlib.sha256(json.dumps([FORMAT_VERSION, of_encoder, settings], sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        state.update(f"{name} {array.dtype} {array.shape}".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
