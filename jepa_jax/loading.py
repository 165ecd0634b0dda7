"""`load_encoder`: by name, from disk, or from the hub."""

from __future__ import annotations

import os
from pathlib import Path

from etils import epath

from jepa_jax.encoders import ENCODERS, Encoder, find_spec, is_checkpoint, restore_encoder
from jepa_jax.encoders.specs import PositionResize
from jepa_jax.errors import ArgumentError, CheckpointError

HUB_FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]


def load_encoder(
    source: str | os.PathLike,
    *,
    image_size: int | None = None,
    position_resize: PositionResize | None = None,
) -> Encoder:
    """Load a pretrained encoder.

    Args:
        source: in this order, a directory that `jepa-jax convert` wrote; a local Hugging Face folder
            (``config.json`` + safetensors); a known name such as ``dinov2-small``; or a hub id such as
            ``facebook/dinov2-small``. The last two fetch from the hub once, into its shared cache.
        image_size: side of the square input, pixels, a multiple of the patch size; by default the
            encoder's own recipe (224). Position embeddings are resized to fit.
        position_resize: how they are resized; by default the way of the implementation that the weights
            came from: official files ``bicubic_offset``, Hugging Face folders ``bicubic`` (with
            registers both ``bicubic_antialias``). See `jepa_jax.encoders.positions`.

    Returns:
        The encoder.

    Raises:
        ArgumentError: the name is unknown, or the image size does not fit.
        CheckpointError: the weights are missing, damaged, or not what they claim to be.
    """
    path = epath.Path(source)
    if path.is_dir():
        encoder = _load_directory(path)
    elif path.is_file():
        raise ArgumentError(
            f"{source} is a file; convert it first: jepa-jax convert {source} --model NAME --output DIR."
        )
    else:
        encoder = _load_hugging_face(_fetch(str(source)))
    spec = encoder.spec
    if position_resize is not None:
        spec = spec.with_position_resize(position_resize)
    if image_size is not None and image_size != spec.image_size:
        spec = spec.at_image_size(image_size)
    return encoder if spec == encoder.spec else Encoder(spec, encoder.params)


def _load_directory(path: epath.Path) -> Encoder:
    if is_checkpoint(path):
        return restore_encoder(path)
    if (path / "config.json").exists():
        return _load_hugging_face(Path(path))
    raise CheckpointError(
        f"{path} holds neither encoder.json (written by jepa-jax convert) nor config.json (a Hugging Face folder)."
    )


def _load_hugging_face(folder: Path) -> Encoder:
    # Imported here: convert_weights stands on jepa_jax.encoders, not the other way round.
    from convert_weights.convert import read_source

    return read_source(folder).encoder


def _fetch(name: str) -> Path:
    """The local folder of a hub repository, downloaded if it is not in the cache."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name in ENCODERS:
        hub_id = ENCODERS[name].hub_id
    else:
        hub_id = name if name.count("/") == 1 else None
        if hub_id is None:
            find_spec(name)  # raises, with the closest names
    assert hub_id is not None
    advice = (
        "Check the name and the network, or download it elsewhere and pass the folder: "
        f"`hf download {hub_id} --local-dir DIR`, then load_encoder('DIR')."
    )
    try:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=HUB_FILES))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(f"{hub_id} is not in the local cache and the hub is out of reach. {advice}") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"{hub_id} cannot be fetched from the hub ({error}). {advice}") from error
