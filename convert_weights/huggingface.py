"""What every Hugging Face folder has: ``config.json`` and ``preprocessor_config.json``, read strictly, and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jepa_jax.encoders import PreprocessSpec
from jepa_jax.errors import CheckpointError
from jepa_jax.images.recipe import Interpolation

_PILLOW_FILTERS: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}


class Config:
    """A JSON configuration whose fields are read by name and type; what is wrong is named."""

    def __init__(self, path: Path, data: dict[str, Any]):
        self.path = path
        self._data = data

    @classmethod
    def read(cls, path: Path) -> Config:
        """The configuration in a file."""
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not readable JSON ({error}); download it again.") from error
        if not isinstance(data, dict):
            raise CheckpointError(f"{path} holds no JSON object; download it again.")
        return cls(path, data)

    def section(self, name: str) -> Config:
        """A nested object as a configuration of its own; where it is absent, an empty one."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise CheckpointError(f"{self.path}: {name} is {value!r}, expected an object.")
        return Config(self.path, value)

    def __bool__(self) -> bool:
        return bool(self._data)

    def get(self, name: str, default: Any = None) -> Any:
        """A field as it is; an explicit null counts as absent."""
        value = self._data.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        """A field that must be a whole number."""
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise CheckpointError(f"{self.path}: {name} is {value!r}, expected a whole number.")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A field that must be a number."""
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise CheckpointError(f"{self.path}: {name} is {value!r}, expected a number.")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """A field that must be true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.path}: {name} is {value!r}, expected true or false.")
        return value

    def text(self, name: str) -> str:
        """A field that must be a string."""
        value = self.get(name)
        if not isinstance(value, str):
            raise CheckpointError(f"{self.path}: {name} is {value!r}, expected a string.")
        return value

    def require(self, name: str, expected: Any, default: Any = None) -> None:
        """Refuse a variant that this converter does not know, instead of ignoring the field."""
        value = self.get(name, default)
        if value != expected:
            raise CheckpointError(f"{self.path}: {name} is {value!r}; only {expected!r} is supported.")


def preprocess_spec(folder: Path, default: PreprocessSpec) -> PreprocessSpec:
    """The recipe in ``preprocessor_config.json``; the family's own where a folder has no such file."""
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return default
    config = Config.read(path)
    for step in ("do_resize", "do_rescale", "do_normalize"):
        config.require(step, True, default=True)
    config.require("rescale_factor", 1 / 255, default=1 / 255)
    resample = config.integer("resample", default=3)
    if resample not in _PILLOW_FILTERS:
        raise CheckpointError(f"{path}: resample is {resample}; only {_PILLOW_FILTERS} are supported.")
    size = config.get("size")
    # ViTImageProcessor gives height and width: the picture is squeezed to them, and nothing is cut.
    squeeze = isinstance(size, dict) and "height" in size
    config.require("do_center_crop", not squeeze, default=not squeeze)
    side = _side(config, "size")
    return PreprocessSpec(
        resize_shortest=side,
        crop=side if squeeze else _side(config, "crop_size"),
        interpolation=_PILLOW_FILTERS[resample],
        mean=_triple(config, "image_mean", default.mean),
        std=_triple(config, "image_std", default.std),
        squeeze=squeeze,
    )


def to_preprocessor_config(recipe: PreprocessSpec, image_processor: str) -> dict[str, Any]:
    """The ``preprocessor_config.json`` of a recipe: the inverse of `preprocess_spec`.

    Args:
        recipe: the preprocessing.
        image_processor: the family's own image processor, which resizes the shorter side and cuts the middle.
    """
    square = {"height": recipe.crop, "width": recipe.crop}
    config: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": next(number for number, name in _PILLOW_FILTERS.items() if name == recipe.interpolation),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(recipe.mean),
        "image_std": list(recipe.std),
    }
    if recipe.squeeze:
        return config | {"image_processor_type": "ViTImageProcessor", "do_center_crop": False, "size": square}
    return config | {
        "image_processor_type": image_processor,
        "size": {"shortest_edge": recipe.resize_shortest},
        "do_center_crop": True,
        "crop_size": square,
    }


def _side(config: Config, name: str) -> int:
    """A size given as a number, as {shortest_edge}, or as a square {height, width}."""
    value = config.get(name)
    if isinstance(value, dict):
        sides = set(value.values()) if set(value) in ({"shortest_edge"}, {"height", "width"}) else set()
        value = sides.pop() if len(sides) == 1 else value
    if not isinstance(value, int):
        raise CheckpointError(f"{config.path}: {name} is {value!r}, expected one side in pixels.")
    return value


def _triple(config: Config, name: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    value = config.get(name, list(default))
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int | float) for v in value):
        raise CheckpointError(f"{config.path}: {name} is {value!r}, expected three numbers.")
    return float(value[0]), float(value[1]), float(value[2])
