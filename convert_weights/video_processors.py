"""How videos are prepared: the video processor of `transformers` that lies beside the weights.

Its configuration stands in ``processor_config.json`` under ``video_processor``, or else in
``video_preprocessor_config.json``, or, as the first release wrote it, in ``preprocessor_config.json``. The one class
that is read, ``VJEPA2VideoProcessor``, works its resize out of its crop, whatever ``size`` says. It chooses no frames:
their number is the configuration's ``frames_per_clip``, and the step between them the authors' (see
`jepa_jax.encoders.vjepa2`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convert_weights.config import Config, shown
from convert_weights.processors import PROCESSOR_FILES, FoundRecipe, Processor, recipe
from jepa_jax.encoders import PreprocessSpec
from jepa_jax.encoders.vjepa2 import FRAME_STEP, FRAMES, resized
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.images.recipe import MAX_FRAMES

VIDEO_FILE = "video_preprocessor_config.json"

CLASS = "VJEPA2VideoProcessor"

_DEFAULT = Processor(
    {"shortest_edge": resized(256)},
    PreprocessSpec.mean,
    PreprocessSpec.std,
    2,
    True,
    {"height": 256, "width": 256},
    False,
)

_WITHOUT_EFFECT = {
    "video_processor_type",
    "size",  # worked out of the crop
    "fps",  # of frames that are chosen, which `do_sample_frames` turns off
    "num_frames",
    "video_metadata",
    "return_metadata",
    "size_divisor",
    "default_to_square",
}


def folder_video_recipe(folder: Path, model: Config, default: PreprocessSpec) -> FoundRecipe:
    """The recipe that ``AutoVideoProcessor`` finds in a folder, with the clip that its ``config.json`` tells.

    Args:
        folder: of Hugging Face.
        model: its ``config.json``.
        default: where the folder has no configuration of a processor at all.

    Raises:
        CheckpointError: the class is unknown, or it is told to do what is not done here.
    """
    frames = model.integer("frames_per_clip", default=FRAMES, most=MAX_FRAMES)
    config = _configuration(folder)
    if config is None:
        return FoundRecipe(dataclasses.replace(default, frames=frames), f"the encoder's own: there is no {VIDEO_FILE}")
    name = config.text("video_processor_type", default=CLASS)
    if name.removesuffix("Fast") != CLASS:
        raise CheckpointError(
            f"{config.path}: video_processor_type is {shown(name)}; only {CLASS} is known. Write down the same "
            "preprocessing as that, or prepare the clips yourself and score arrays."
        )
    config.require("do_sample_frames", False, default=False)
    told = {name: value for name, value in config.fields().items() if name not in _WITHOUT_EFFECT}
    told.pop("do_sample_frames", None)
    side = _crop(config)
    told |= {"size": {"shortest_edge": resized(side)}, "crop_size": {"height": side, "width": side}}
    found = recipe(Config(config.path, told), _DEFAULT)
    return FoundRecipe(
        dataclasses.replace(found, frames=frames, frame_step=FRAME_STEP), f"{config.path.name} ({name})"
    )


def to_video_processor_config(preprocess: PreprocessSpec) -> dict[str, Any]:
    """The ``video_preprocessor_config.json`` of a recipe: the inverse of `folder_video_recipe`.

    Raises:
        ArgumentError: the class cannot do that.
    """
    expected = resized(preprocess.crop), "bilinear", False, FRAME_STEP
    found = preprocess.resize_shortest, preprocess.interpolation, preprocess.squeeze, preprocess.frame_step
    if found != expected:
        names = "resize_shortest", "interpolation", "squeeze", "frame_step"
        name, value, only = next(each for each in zip(names, found, expected, strict=True) if each[1] != each[2])
        raise ArgumentError(
            f"{name}={value!r} cannot be written for transformers, whose {CLASS} stands for {only!r}: its scores "
            "would be others. Load the encoder without that change."
        )
    return {
        "video_processor_type": CLASS,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocess.resize_shortest},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": preprocess.crop, "width": preprocess.crop},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def _configuration(folder: Path) -> Config | None:
    nested, plain = (folder / name for name in PROCESSOR_FILES)
    if nested.exists() and "video_processor" in (whole := Config.read(nested)):
        return whole.section("video_processor")
    return next((Config.read(path) for path in (folder / VIDEO_FILE, plain) if path.exists()), None)


def _crop(config: Config) -> int:
    """One number, or height and width of a square."""
    value = config.get("crop_size", 256)
    if isinstance(value, Mapping):
        if set(value) != {"height", "width"} or value["height"] != value["width"]:
            raise config.wrong("crop_size", "height and width of a square")
        value = value["height"]
    return Config(config.path, {"crop_size": value}).integer("crop_size", most=4096 * 224 // 256)
