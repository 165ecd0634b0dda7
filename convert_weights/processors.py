"""How pictures are prepared: the image processor of `transformers` that lies beside the weights.

Its configuration stands in ``processor_config.json`` under ``image_processor``, or else in
``preprocessor_config.json``; a field that is absent there has the default of its class. A null is none: to
`transformers` it is a value, that of a flag which is off. What a class does and this package does not is refused by
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert_weights.config import Config, Triple, shown
from jepa_jax.encoders import PreprocessSpec
from jepa_jax.encoders.clip import CLIP_MEAN, CLIP_STD, HALF
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.images.recipe import MAX_SIDE, Interpolation

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""In the order in which `transformers` takes them; the first counts where it has an ``image_processor``."""

PILLOW_FILTERS: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Processor:
    """What a class of image processors does where its configuration is silent.

    Attributes:
        size: what pictures are resized to: ``shortest_edge``, or ``height`` and ``width``.
        mean, std: per-channel normalisation.
        resample: Pillow's number of the filter.
        center_crop: whether the middle is cut out, of ``crop_size``.
        crop_size: height and width, or None.
        default_to_square: whether a size that is one number means a square.
    """

    size: Mapping[str, int]
    mean: Triple
    std: Triple
    resample: int
    center_crop: bool
    crop_size: Mapping[str, int] | None
    default_to_square: bool


_SQUARE = {"height": 224, "width": 224}
_CLIP = Processor({"shortest_edge": 224}, CLIP_MEAN, CLIP_STD, 3, True, _SQUARE, False)

PROCESSORS = {
    "CLIPImageProcessor": _CLIP,
    "BitImageProcessor": _CLIP,
    "DINOv3ViTImageProcessor": Processor(_SQUARE, PreprocessSpec.mean, PreprocessSpec.std, 2, False, None, True),
    "ViTImageProcessor": Processor(_SQUARE, HALF, HALF, 2, False, None, True),
    "SiglipImageProcessor": Processor(_SQUARE, HALF, HALF, 3, False, None, False),
}
"""Classes by name, to which ``Fast`` or ``Pil`` may be appended; the old ``...FeatureExtractor`` are the same."""

OF_MODEL_TYPE = {
    "clip": "CLIPImageProcessor",
    "clip_vision_model": "CLIPImageProcessor",
    "dinov2": "BitImageProcessor",
    "dinov2_with_registers": "BitImageProcessor",
    "dinov3_vit": "DINOv3ViTImageProcessor",
    "ijepa": "ViTImageProcessor",
    "siglip": "SiglipImageProcessor",
    "siglip_vision_model": "SiglipImageProcessor",
}
"""The class where no file names one, as ``AutoImageProcessor`` has it."""

_FLAGS = {
    "do_resize",
    "default_to_square",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_pad",
    "use_square_size",
}
_VALUES = {"size", "resample", "crop_size", "rescale_factor", "image_mean", "image_std", "pad_size"}
_WITHOUT_EFFECT = {
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "auto_map",
    "_valid_processor_keys",
    "do_convert_rgb",  # pictures always are
    "data_format",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
    "image_seq_length",
    "model_input_names",
    "transformers_version",
    "use_fast",
    "name_or_path",
    "_name_or_path",
}


@dataclass(frozen=True)
class FoundRecipe:
    """A recipe, and in words where it stands."""

    preprocess: PreprocessSpec
    origin: str


def folder_recipe(folder: Path, model: Config, default: PreprocessSpec) -> FoundRecipe:
    """The recipe that ``AutoImageProcessor`` finds in a folder.

    Args:
        folder: of Hugging Face.
        model: its ``config.json``, which may name the class of the processor.
        default: where the folder has no configuration of a processor at all: then `transformers` has none either.

    Raises:
        CheckpointError: the class is unknown, or it is told to do what is not done here.
    """
    config = _processor_config(folder)
    if config is None:
        return FoundRecipe(default, f"the encoder's own: neither {' nor '.join(PROCESSOR_FILES)} has one")
    name, processor = _processor(config, model)
    config = config.replacing_nulls(dict.fromkeys(_FLAGS, False))
    return FoundRecipe(recipe(config, processor), f"{config.path.name} ({name})")


def _processor_config(folder: Path) -> Config | None:
    nested, plain = (folder / name for name in PROCESSOR_FILES)
    if nested.exists() and "image_processor" in (whole := Config.read(nested)):
        return whole.section("image_processor")
    return Config.read(plain) if plain.exists() else None


def _processor(config: Config, model: Config) -> tuple[str, Processor]:
    if "image_processor_type" in config:
        told = config.text("image_processor_type")
    elif "feature_extractor_type" in config:
        told = config.text("feature_extractor_type").replace("FeatureExtractor", "ImageProcessor")
    elif "image_processor_type" in model:
        told = model.text("image_processor_type")
    else:
        told = OF_MODEL_TYPE[model.text("model_type")]
    name = told.removesuffix("Fast").removesuffix("Pil")
    if name not in PROCESSORS:
        raise CheckpointError(
            f"{config.path}: image_processor_type is {shown(told)}; known are {', '.join(PROCESSORS)}. Write down "
            "the same preprocessing as one of these, or prepare the images yourself and score arrays."
        )
    return name, PROCESSORS[name]


def recipe(config: Config, processor: Processor) -> PreprocessSpec:
    """What a class does as it is configured."""
    _refuse_what_is_not_done(config)
    config.refuse_nulls("size", "resample", "rescale_factor")
    size = _size(config, "size", processor.size, config.flag("default_to_square", processor.default_to_square))
    crop = _crop(config, processor) if config.flag("do_center_crop", processor.center_crop) else None
    resample = config.integer("resample", processor.resample, least=0)
    if resample not in PILLOW_FILTERS:
        raise CheckpointError(f"{config.path}: resample is {resample}; only {PILLOW_FILTERS} are supported.")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.flag("do_normalize", True):
        config.refuse_nulls("image_mean", "image_std")
        mean, std = config.triple("image_mean", processor.mean), config.triple("image_std", processor.std)
    resize, side, squeeze = _geometry(config, size, crop)
    try:
        return PreprocessSpec(resize, side, PILLOW_FILTERS[resample], mean, std, squeeze)
    except ArgumentError as error:
        raise CheckpointError(f"{config.path}: {error}") from error


def _refuse_what_is_not_done(config: Config) -> None:
    config.require("do_resize", True, default=True)
    config.require("do_rescale", True, default=True)
    config.require("rescale_factor", 1 / 255, default=1 / 255)
    config.require("do_pad", False, default=False)
    config.require("use_square_size", False, default=False)
    unknown = sorted(config.fields().keys() - _FLAGS - _VALUES - _WITHOUT_EFFECT)
    if unknown:
        raise config.unknown(unknown[0])


def _geometry(config: Config, size: Mapping[str, int], crop: int | None) -> tuple[int, int, bool]:
    """``resize_shortest``, ``crop`` and ``squeeze`` of a recipe."""
    if "shortest_edge" in size:
        if crop is None:
            raise CheckpointError(
                f"{config.path}: do_center_crop is false and size is {dict(size)}: the pictures would keep their "
                "shapes, and an encoder here takes squares. Give size as height and width, or a crop_size."
            )
        return size["shortest_edge"], crop, False
    side = _square(config, "size", size)
    if crop not in (None, side):
        raise CheckpointError(
            f"{config.path}: size is {dict(size)} and crop_size is {crop}: pictures would be squeezed to a square "
            "and a centre crop taken of that, which is not done here."
        )
    return side, side, True


def _crop(config: Config, processor: Processor) -> int:
    config.refuse_nulls("crop_size")
    if "crop_size" not in config and processor.crop_size is None:
        raise CheckpointError(f"{config.path}: do_center_crop is true and crop_size is absent; add it.")
    size = _size(config, "crop_size", processor.crop_size or {}, default_to_square=True)
    return _square(config, "crop_size", size)


def _square(config: Config, name: str, size: Mapping[str, int]) -> int:
    if size.keys() != {"height", "width"} or size["height"] != size["width"]:
        raise CheckpointError(f"{config.path}: {name} is {dict(size)}, expected height and width of a square.")
    return size["height"]


def _size(config: Config, name: str, default: Mapping[str, int], default_to_square: bool) -> Mapping[str, int]:
    """A size as ``{shortest_edge}`` or ``{height, width}``; one number or two stand for one of these."""
    value = config.get(name, default)
    if isinstance(value, list):
        value = dict(zip(("height", "width"), value, strict=True)) if len(value) == 2 else {}
    elif not isinstance(value, Mapping):
        value = {"height": value, "width": value} if default_to_square else {"shortest_edge": value}
    sides = {edge: side for edge, side in value.items() if side is not None}
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides.values())
    if sides.keys() not in ({"shortest_edge"}, {"height", "width"}) or not whole:
        raise config.wrong(name, "one side in pixels, shortest_edge, or height and width", default)
    if not all(1 <= side <= MAX_SIDE for side in sides.values()):
        raise config.wrong(name, f"sides from 1 to {MAX_SIDE} pixels", default)
    return sides


def to_preprocessor_config(recipe: PreprocessSpec, image_processor: str) -> dict[str, Any]:
    """The ``preprocessor_config.json`` of a recipe: the inverse of `folder_recipe`.

    Args:
        recipe: the preprocessing.
        image_processor: the family's own image processor.
    """
    square = {"height": recipe.crop, "width": recipe.crop}
    config: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": next(number for number, name in PILLOW_FILTERS.items() if name == recipe.interpolation),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(recipe.mean),
        "image_std": list(recipe.std),
    }
    if recipe.squeeze:
        squeezes = PROCESSORS[image_processor].size.keys() == square.keys()
        name = image_processor if squeezes else "ViTImageProcessor"
        return config | {"image_processor_type": name, "do_center_crop": False, "size": square}
    return config | {
        "image_processor_type": image_processor,
        "size": {"shortest_edge": recipe.resize_shortest},
        "do_center_crop": True,
        "crop_size": square,
    }
