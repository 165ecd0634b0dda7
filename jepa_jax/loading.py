"""`load_encoder`: by name, from disk, or from the hub."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from jepa_jax.encoders import ENCODERS, SHIPPED, Encoder, find_spec, is_checkpoint, load_shipped, restore_encoder
from jepa_jax.encoders.specs import PositionResize
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.paths import AnyPath, require_named, to_path

_log = logging.getLogger(__name__)


def load_encoder(
    source: str | os.PathLike,
    *,
    image_size: int | None = None,
    frames: int | None = None,
    frame_step: int | None = None,
    position_resize: PositionResize | None = None,
    l2_normalize: bool | None = None,
) -> Encoder:
    """Load a pretrained encoder.

    Args:
        source: in this order, a directory that `jepa-jax convert` wrote; a local folder of transformers
            (``config.json`` and weights) or OpenCLIP (``open_clip_config.json`` and weights); a known name such
            as ``dinov2-small``; or a hub id such as ``facebook/dinov2-small``. The last two fetch from the hub
            once, into its shared cache; ``jepa-tiny`` ships with this package. docs/weights.md lists the files
            that are read. Of a fine-tuned model the encoder is loaded; the head is left out with a warning.
        image_size: side of the square input, pixels, a multiple of the patch size; by default the
            encoder's own recipe (mostly 224). Position embeddings are resized to fit.
        frames: of a clip, where the encoder takes clips (V-JEPA 2): a multiple of the frames in a patch; by default as
            it was published, 64. Time is a position like any other: another number needs no resizing.
        frame_step: a clip of a video has every so many of its frames, from the first on; by default 2.
        position_resize: how they are resized; by default the way of the implementation that the weights
            came from: official files ``bicubic_offset``, Hugging Face folders ``bicubic`` (with
            registers both ``bicubic_antialias``). See `jepa_jax.layers.positions`.
        l2_normalize: whether the embedding is divided by its length, as CLIP compares images; by default as
            the checkpoint says, and no published one is.

    Returns:
        The encoder.

    Raises:
        ArgumentError: the name is unknown, or the image size does not fit.
        CheckpointError: the weights are missing, damaged, or not what they claim to be.

    Example:
        >>> import jepa_jax as jj
        >>> jj.load_encoder("jepa-tiny")
        Encoder('jepa-tiny', image_size=32, K=64)
    """
    require_named(source, "model")
    path = to_path(source)
    if path.is_dir():
        encoder = _load_directory(path)
    elif path.is_file():
        raise ArgumentError(
            f"{source} is a file; convert it first: jepa-jax convert {source} --model NAME --output DIR."
        )
    else:
        encoder = _load_from_hub(str(source))
    spec = encoder.spec
    if position_resize is not None:
        spec = spec.with_position_resize(position_resize)
    if image_size is not None and image_size != spec.image_size:
        spec = spec.at_image_size(image_size)
    if frames is not None or frame_step is not None:
        spec = spec.with_frames(frames, frame_step)
    if l2_normalize is not None:
        spec = spec.with_l2_normalize(l2_normalize)
    return encoder if spec == encoder.spec else Encoder(spec, encoder.params)


def _load_directory(path: AnyPath) -> Encoder:
    if is_checkpoint(path):
        return restore_encoder(path)
    if is_checkpoint(path / "encoder"):
        raise ArgumentError(f"model {path} is a run of jepa-jax train; its encoder is {path / 'encoder'}: name that.")
    if (path / "config.json").exists() or (path / "open_clip_config.json").exists():
        return _load_folder(Path(path))
    raise CheckpointError(
        f"{path} holds neither encoder.json (written by jepa-jax convert) nor config.json (a Hugging Face folder) "
        "nor open_clip_config.json (OpenCLIP's)."
    )


def _load_folder(folder: Path, name: str | None = None) -> Encoder:
    # Imported here: convert_weights stands on jepa_jax.encoders, not the other way round.
    from convert_weights.convert import read_source

    source = read_source(folder, name)
    for names, reason in source.left_out_here.items():
        level = logging.WARNING if reason.startswith("the head") else logging.INFO
        _log.log(level, "%s: left out: %s (%s).", folder, names, reason)
    return source.encoder


def _load_from_hub(source: str) -> Encoder:
    """An encoder by its known name, shipped or published, or by a hub id, its name where it has no other."""
    if _is_a_path(source):
        raise ArgumentError(
            f"model {source}: there is no such directory. Give one that jepa-jax convert wrote, a Hugging Face "
            "folder, a known name (jepa-jax models lists them) or a hub id such as facebook/dinov2-small."
        )
    if source.count("/") == 1:
        names = {spec.hub_id: spec.name for spec in ENCODERS.values()}
        return _load_folder(_fetch(source), names.get(source, source))
    spec = find_spec(source)
    if spec.name in SHIPPED:
        return load_shipped(spec.name)
    if spec.hub_id is None:
        raise ArgumentError(
            f"{source} is published as its authors' file alone: download that, then "
            f"jepa-jax convert FILE --model {source} --output DIR."
        )
    return _load_folder(_fetch(spec.hub_id), source)


def _is_a_path(source: str) -> bool:
    """Whether a name that is no directory was meant as one: no name and no hub id looks like it."""
    return source.startswith((".", "/", "~")) or source.endswith("/") or source.count("/") > 1 or "\\" in source


def _fetch(hub_id: str) -> Path:
    """The local folder of a hub repository; what it lacks of the files that are read is downloaded."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    from convert_weights.folders import DESCRIPTIONS, weight_files

    def download(names: Sequence[str], revision: str | None = None) -> Path:
        # The descriptions lie there by then: no pattern would match where a name that is tried does not exist.
        patterns = [glob.escape(name) for name in (*DESCRIPTIONS, *names)]
        return Path(huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=patterns))

    advice = (
        "Check the name and the network, or download it elsewhere and pass the folder: "
        f"`hf download {hub_id} --local-dir DIR`, then DIR in place of the name."
    )
    try:
        folder = download([])
        # A snapshot's folder is called by its commit: what is fetched later is of the same state.
        revision = folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else None
        weight_files(folder, lambda names: download(names, revision))
        return folder
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{hub_id} is not in the local cache, no directory has that name, and the hub is out of reach. {advice}"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # what a network makes of a download is no closed set
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{hub_id} cannot be fetched from the hub ({reason}). {advice}") from error
