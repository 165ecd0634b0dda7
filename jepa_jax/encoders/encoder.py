"""An encoder ready to use: spec, parameters, preprocessing, and the pure function behind it."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from jepa_jax.encoders import identity
from jepa_jax.encoders.function import EncoderFunction, layer_ranks, null_direction_count
from jepa_jax.encoders.layerwise import cut_params, cut_spec, layer_numbers
from jepa_jax.encoders.parameters import Params, build_module, check_params, named_arrays, same_arrays
from jepa_jax.encoders.specs import EncoderSpec
from jepa_jax.encoders.vit import ViT
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.images.layouts import is_one_picture, misread
from jepa_jax.images.preprocessing import preprocess, preprocess_clips

Picture = Image.Image | np.ndarray | jax.Array
"""What can be prepared; of arrays a batch too."""


class Encoder:
    """A pretrained encoder.

    Attributes:
        spec: what it is.
        params: its parameters, nested dicts of arrays.
        function: its pure function, for use in a program of one's own.
    """

    def __init__(self, spec: EncoderSpec, params: Params):
        check_params(spec.vit, params)
        scale = np.asarray(params["norm"]["scale"])
        if spec.vit.pooling != "attention" and not np.all(np.isfinite(scale) & (scale != 0)):
            raise CheckpointError(
                f"norm.scale of {spec.name!r} has {int(np.sum(~np.isfinite(scale) | (scale == 0)))} values that "
                "are zero or not finite: its embedding has dead dimensions, and its score is not defined."
            )
        self.spec = spec
        self.params = params
        self.function = EncoderFunction(spec.vit, spec.gaussian_embedding)
        self._digested: tuple[list[Any], str] = [], ""

    def __repr__(self) -> str:
        return f"Encoder({self.spec.name!r}, image_size={self.spec.image_size}, K={self.spec.embedding_size})"

    def __call__(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Embed preprocessed images [B, H, W, 3] as [B, K], with exact float32 products on every backend.

        Clips [B, T, H, W, 3] where the encoder takes clips.
        """
        with jax.default_matmul_precision("highest"):
            return _embed(self.function, self.params, images)

    def preprocess(self, images: Picture | Sequence[Picture] | Sequence[Sequence[Picture]]) -> np.ndarray:
        """Pictures to this encoder's input, by its own recipe (see `preprocessing`).

        Clips to float32 [B, T, H, W, 3] where the encoder takes clips. Their frames are taken as they are given: which
        of a video's frames make a clip is chosen where videos are read (see `jepa_jax.images.videos`).

        Args:
            images: one picture or many: a PIL image of any mode or a uint8 array [H, W], [H, W, 1], [H, W, 3] or
                [H, W, 4]; a sequence of such, of any sizes; or one array [B, H, W, C] or [B, H, W] of several. Of
                clips, for each a sequence of T of these, or an array [T, H, W, C]; or one array [B, T, H, W, C].

        Returns:
            float32 [B, side, side, 3], normalised; B is 1 for one picture. Of clips [B, T, side, side, 3].

        Raises:
            ArgumentError: an array's layout is not sure, such as [3, H, W]: its channels come first, or it is three
                grey pictures.
            ImageError: an image cannot be used; the message says which and why.

        Example:
            >>> import jepa_jax as jj
            >>> import numpy as np
            >>> encoder = jj.load_encoder("jepa-tiny")
            >>> picture = np.zeros((40, 60, 3), np.uint8)
            >>> encoder.preprocess(picture).shape
            (1, 32, 32, 3)
            >>> encoder.preprocess([picture, picture[:, :40]]).shape
            (2, 32, 32, 3)
        """
        if self.spec.preprocess.frames is not None:
            return preprocess_clips(_clips(images), self.spec.preprocess)
        return preprocess(_pictures(images), self.spec.preprocess)

    def at_layer(self, layer: int) -> Encoder:
        """The encoder that one of the blocks makes: its tokens, pooled through the final LayerNorm.

        It is an encoder like any other: for `jepa_jax.jacobian`, `jepa_jax.score_gradient` or a job of its own.
        ``jepa_jax.score(encoder, batch, layers=[...])`` scores several layers for less than one after the other.

        Args:
            layer: 1 for the first block, -1 for the last; see `jepa_jax.encoders.layerwise`.

        Raises:
            ArgumentError: there is no such layer.
        """
        (number,) = layer_numbers([layer], self.spec.vit.depth)
        spec = dataclasses.replace(
            self.spec,
            name=f"{self.spec.name}-layer-{number}",
            vit=cut_spec(self.spec.vit, number),
            hub_id=None,
            gaussian_embedding=False,
        )
        return Encoder(spec, cut_params(self.params, number))

    def layer_ranks(self, layers: Sequence[int]) -> dict[int, int]:
        """Of how many singular values each layer's score is the sum, by the layer's number from 1 on."""
        return layer_ranks(self.spec.vit, math.prod(self.spec.input_shape), layers)

    @property
    def null_direction_count(self) -> int:
        """Number m of structural null directions; a score sums K - m singular values."""
        return null_direction_count(self.spec.vit)

    def module(self) -> ViT:
        """The Flax module, holding these parameters."""
        return build_module(self.spec.vit, self.params)

    @property
    def parameter_count(self) -> int:
        """Number of values in the parameters."""
        return sum(array.size for _, array in named_arrays(self.params))

    @property
    def parameter_bytes(self) -> int:
        """Bytes that the parameters take, as they are stored."""
        return sum(array.nbytes for _, array in named_arrays(self.params))

    @property
    def digest(self) -> str:
        """SHA-256 over all that decides a score (see `identity.digest`); anew where arrays are replaced."""
        arrays = jax.tree.leaves(self.params)
        if not same_arrays(self._digested[0], arrays):
            self._digested = arrays, identity.digest(self.spec, named_arrays(self.params))
        return self._digested[1]


def _pictures(images: Any) -> list[Image.Image | np.ndarray]:
    """One picture or many as a list of pictures."""
    if isinstance(images, Image.Image):
        return [images]
    _require_opened(images)
    if hasattr(images, "__array__"):  # NumPy's, JAX's and other libraries' arrays
        images = np.asarray(images)
        if is_one_picture(images.shape):
            return [images]
        if problem := misread(images.shape):
            raise ArgumentError(f"images is an array of shape {images.shape}: {problem}.")
    return [np.asarray(image) if isinstance(image, jax.Array) else image for image in images]


def _clips(images: Any) -> Any:
    """Clips as `preprocess_clips` takes them."""
    if isinstance(images, Image.Image):
        return images
    _require_opened(images)
    if hasattr(images, "__array__"):
        return np.asarray(images)
    return [np.asarray(clip) if isinstance(clip, jax.Array) else clip for clip in images]


def _require_opened(images: Any) -> None:
    if isinstance(images, (str, bytes, os.PathLike)):
        raise ArgumentError(
            f"images is {type(images).__name__}, no picture: open it with PIL.Image.open, or score a folder with "
            "jepa_jax.score_folder."
        )
    if images is None or isinstance(images, np.ma.MaskedArray):
        kind = "None" if images is None else "a masked array, and a picture has a value everywhere"
        raise ArgumentError(f"images is {kind}; pass pictures: PIL images, or uint8 arrays [H, W, 3].")


@functools.partial(jax.jit, static_argnums=0)
def _embed(function: EncoderFunction, params: Params, images: jax.Array) -> jax.Array:
    return function(params, images)
