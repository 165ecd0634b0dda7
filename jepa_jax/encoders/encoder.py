"""An encoder ready to use: spec, parameters, preprocessing, and the pure function behind it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import numpy as np
from PIL import Image

from jepa_jax.encoders import identity
from jepa_jax.encoders.function import EncoderFunction, null_direction_count
from jepa_jax.encoders.parameters import Params, build_module, check_params, named_arrays
from jepa_jax.encoders.specs import EncoderSpec
from jepa_jax.encoders.vit import ViT
from jepa_jax.errors import ArgumentError, CheckpointError
from jepa_jax.images.layouts import misread
from jepa_jax.images.preprocessing import preprocess, preprocess_clips


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

    def __repr__(self) -> str:
        return f"Encoder({self.spec.name!r}, image_size={self.spec.image_size}, K={self.spec.embedding_size})"

    def __call__(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Embed preprocessed images [B, H, W, 3] as [B, K], with exact float32 products on every backend.

        Clips [B, T, H, W, 3] where the encoder takes clips.
        """
        with jax.default_matmul_precision("highest"):
            return _embed(self.function, self.params, images)

    def preprocess(self, images: Sequence[Image.Image | np.ndarray] | np.ndarray) -> np.ndarray:
        """Pictures to this encoder's input, float32 [B, H, W, 3], by its own recipe (see `preprocessing`).

        Clips to float32 [B, T, H, W, 3] where the encoder takes clips. Their frames are taken as they are given: which
        of a video's frames make a clip is chosen where videos are read (see `jepa_jax.images.videos`).

        Args:
            images: PIL images or uint8 arrays, or one array [B, H, W, C] or [B, H, W] of several. Of clips, for each
                a sequence of T of these, or an array [T, H, W, C]; or one array [B, T, H, W, C].

        Raises:
            ArgumentError: it is one picture, or could be one and many.
            ImageError: an image cannot be used.
        """
        if self.spec.preprocess.frames is not None:
            return preprocess_clips(images, self.spec.preprocess)
        if isinstance(images, Image.Image):
            raise ArgumentError("images is one picture and no sequence of them; write [image].")
        if isinstance(images, np.ndarray) and (problem := misread(images.shape)):
            raise ArgumentError(f"images is an array of shape {images.shape}: {problem}.")
        return preprocess(list(images), self.spec.preprocess)

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

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over all that decides a score (see `identity.digest`)."""
        return identity.digest(self.spec, named_arrays(self.params))


@functools.partial(jax.jit, static_argnums=0)
def _embed(function: EncoderFunction, params: Params, images: jax.Array) -> jax.Array:
    return function(params, images)
