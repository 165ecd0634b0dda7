"""How an encoder wants its pictures: size, filter, normalisation, as frozen data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from jepa_jax.errors import ArgumentError

Interpolation = Literal["bicubic", "bilinear"]
"""Pillow filters that a recipe may name."""

MAX_SIDE = 4096
"""Pixels to which a side may be resized: an encoder whose input is larger has never been published."""

MAX_FRAMES = 1024
"""Frames that a clip may have: published ones have 64."""

_RANGE = 1e6
"""No mean of a channel is larger, and no standard deviation larger or smaller than its inverse."""


@dataclass(frozen=True)
class PreprocessSpec:
    """The encoder's own recipe from an image to its input.

    Attributes:
        resize_shortest: the image is resized so that its shorter side has this many pixels.
        crop: side of the square cut from the middle: the encoder's input size.
        interpolation: Pillow filter of the resize; Pillow antialiases when it shrinks.
        mean, std: per-channel normalisation of values in [0, 1], RGB.
        squeeze: the picture is resized to the square itself, whatever its shape, and nothing is cut off
            (`transformers`' ``ViTImageProcessor``); ``resize_shortest`` then equals ``crop``.
        frames: of a clip, where the encoder takes clips; None where it takes images.
        frame_step: a clip has every so many of a video's frames, from the first on.
    """

    resize_shortest: int = 256
    crop: int = 224
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    squeeze: bool = False
    frames: int | None = None
    frame_step: int = 1

    def __post_init__(self):
        if self.squeeze and self.resize_shortest != self.crop:
            raise ArgumentError(
                f"squeeze=True resizes to {self.crop} pixels; resize_shortest={self.resize_shortest} cannot differ."
            )
        if not 0 < self.crop <= self.resize_shortest:
            raise ArgumentError(f"crop={self.crop} must lie between 1 and resize_shortest={self.resize_shortest}.")
        if self.resize_shortest > MAX_SIDE:
            raise ArgumentError(f"resize_shortest={self.resize_shortest} must be at most {MAX_SIDE} pixels.")
        if self.frames is not None and not 1 <= self.frames <= MAX_FRAMES:
            raise ArgumentError(f"frames={self.frames} must lie between 1 and {MAX_FRAMES}.")
        if not 1 <= self.frame_step <= MAX_FRAMES:
            raise ArgumentError(f"frame_step={self.frame_step} must lie between 1 and {MAX_FRAMES}.")
        if not all(abs(value) <= _RANGE for value in self.mean):
            raise ArgumentError(f"mean={self.mean} must hold finite numbers, none beyond {_RANGE:g}.")
        if not all(1 / _RANGE <= value <= _RANGE for value in self.std):
            raise ArgumentError(f"std={self.std} must hold numbers from {1 / _RANGE:g} to {_RANGE:g}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an input that is prepared so: (H, W, 3), or (T, H, W, 3) of a clip."""
        return (*(() if self.frames is None else (self.frames,)), self.crop, self.crop, 3)

    @property
    def frames_needed(self) -> int:
        """Frames that a video must have, from its first to the last that is in a clip of it."""
        return 1 if self.frames is None else (self.frames - 1) * self.frame_step + 1

    def at_image_size(self, size: int) -> PreprocessSpec:
        """The same recipe for inputs of another size: the share of the image that is kept stays the same."""
        resize = max(size, round(self.resize_shortest * size / self.crop))
        return dataclasses.replace(self, resize_shortest=resize, crop=size)
