"""Converted checkpoints on disk: an Orbax tree beside a JSON description. The only user of Orbax.

DIR/encoder.json    format version, spec (see `identity`), origin (source file digests), parameter digest
DIR/params/         Orbax checkpoint
"""

from __future__ import annotations

import json
import math
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from jepa_jax._version import __version__
from jepa_jax.encoders.encoder import Encoder
from jepa_jax.encoders.identity import FORMAT_VERSION, MIGRATIONS
from jepa_jax.encoders.parameters import check_params, named_arrays, parameter_shapes
from jepa_jax.encoders.specs import EncoderSpec
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.paths import AnyPath, PathLike, to_path

DESCRIPTION = "encoder.json"


def is_checkpoint(path: PathLike) -> bool:
    """Whether a directory holds a checkpoint that `save_encoder` wrote."""
    return (to_path(path) / DESCRIPTION).exists()


def save_encoder(encoder: Encoder, path: PathLike, origin: dict[str, Any] | None = None) -> None:
    """Write an encoder to a new directory.

    Args:
        encoder: what to write.
        path: a directory that does not exist yet, or is empty.
        origin: where the weights came from (files and their SHA-256), recorded as it is.

    Raises:
        ArgumentError: the directory holds something already.
    """
    directory = to_path(path).resolve()
    if directory.exists() and any(directory.iterdir()):
        raise ArgumentError(f"output directory {directory} is not empty; name a new one.")
    directory.mkdir(parents=True, exist_ok=True)
    with _streaming(encoder.params):
        ocp.save(str(directory / "params"), encoder.params)
    description = {
        "format_version": FORMAT_VERSION,
        "jepa_jax_version": __version__,
        "digest": encoder.digest,
        "origin": origin or {},
        "spec": encoder.spec.to_dict(),
    }
    # Written last: a directory with a description is whole.
    (directory / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def read_description(path: PathLike) -> dict[str, Any]:
    """The JSON description of a converted checkpoint, as it was written; `read_spec` knows its format."""
    file = to_path(path) / DESCRIPTION
    try:
        description = json.loads(file.read_text())
        version = description["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); convert the weights again.") from error
    known = (*MIGRATIONS, FORMAT_VERSION)
    if type(version) is not int or version not in known:
        raise CheckpointError(
            f"{file} has format version {version!r}; this jepa_jax reads versions {', '.join(map(str, known))}. "
            "Read it with the jepa_jax that wrote it, or convert the weights again."
        )
    lost = sorted({"spec", "digest"} - description.keys())
    if lost:
        raise CheckpointError(f"{file} lacks {' and '.join(lost)}; convert the weights again.")
    return description


def read_spec(path: PathLike) -> EncoderSpec:
    """What the encoder of a converted checkpoint is, without its parameters."""
    description = read_description(path)
    return EncoderSpec.from_dict(description["spec"], description["format_version"])


def restore_encoder(path: PathLike) -> Encoder:
    """Read an encoder back, checking every path, shape and dtype."""
    directory = to_path(path).resolve()
    description = read_description(directory)
    spec = EncoderSpec.from_dict(description["spec"], description["format_version"])
    try:
        _check_stored(directory, spec)
        shapes = parameter_shapes(spec.vit, spec.kernel_dtype)
        # The target keeps the block numbers ints. Orbax would pad or cast to it silently: the digest below tells.
        with _streaming(shapes):
            params = ocp.load(str(directory / "params"), jax.tree.map(_target_leaf, shapes))
    except Exception as error:  # an unreadable data file is a bare Exception of many lines to Orbax
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{directory / 'params'} is damaged or incomplete ({reason}); convert the weights again."
        ) from error
    check_params(spec.vit, params)
    encoder = Encoder(spec, params)
    if encoder.digest != description["digest"]:
        raise CheckpointError(f"{directory} does not hold what its digest says; convert the weights again.")
    return encoder


def _check_stored(directory: AnyPath, spec: EncoderSpec) -> None:
    """Compare the arrays' shapes as Orbax recorded them, before a depth is enumerated or an array allocated."""
    stored = dict(named_arrays(ocp.metadata(str(directory / "params")).metadata))
    if spec.vit.depth > len(stored):
        raise ValueError(f"depth is {spec.vit.depth}, and there are {len(stored)} arrays in all")
    for name, leaf in named_arrays(parameter_shapes(spec.vit, spec.kernel_dtype)):
        found = tuple(stored[name].shape) if name in stored else None
        if found != leaf.shape:
            raise ValueError(f"{name} has shape {found}, expected {leaf.shape}")


def _streaming(tree: Any) -> ocp.Context:
    """Orbax working on a few arrays at a time; left alone, it copies all of them at once."""
    context = ocp.Context()
    # The limit must exceed the largest array: Orbax refuses one that it has no room for.
    limit = 2 * max(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    context.memory.write_concurrent_bytes = limit
    context.memory.read_concurrent_bytes = limit
    context.memory.transfer_concurrent_bytes = limit
    context.memory.deepcopy_host_arrays = False  # nobody changes them meanwhile
    return context


def _target_leaf(shape: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    device = jax.local_devices()[0]
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=jax.sharding.SingleDeviceSharding(device))
