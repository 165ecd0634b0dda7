"""Random views of examples, drawn inside the compiled step: input costs next to nothing on any backend."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

LUMA = (0.299, 0.587, 0.114)
"""How red, green and blue add up to grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class Crops:
    """Random resized crops of one size.

    Attributes:
        count: views of this kind per image.
        size: their side, pixels.
        scale: range of the share of the image's area that a crop covers.
    """

    count: int
    size: int
    scale: tuple[float, float]


@dataclass(frozen=True)
class ImageViews:
    """Crops, mirrored and with colours changed.

    Attributes:
        crops: one entry per size; more views of smaller crops cost less than few large ones.
        brightness, contrast, saturation: half-widths of the ranges of their factors, around 1.
        hue: largest rotation about the grey axis, turns.
        jitter_share, grey_share: shares of the views that are changed in colour, and that lose it.
    """

    crops: tuple[Crops, ...]
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    jitter_share: float = 0.8
    grey_share: float = 0.2

    def __call__(self, images: jax.Array, key: jax.Array) -> list[jax.Array]:
        """Images [B, H, W, 3] in [0, 1] to one array [V, B, size, size, 3] in [0, 1] per kind of crop."""
        views = []
        for kind, crops in enumerate(self.crops):
            keys = jax.random.split(jax.random.fold_in(key, kind), (crops.count, images.shape[0]))
            draw = jax.vmap(jax.vmap(lambda image, k, c=crops: self._draw(image, k, c)), in_axes=(None, 0))
            views.append(draw(images, keys))
        return views

    def _draw(self, image: jax.Array, key: jax.Array, crops: Crops) -> jax.Array:
        place, colour = jax.random.split(key)
        rows, columns = crop_matrices(place, (image.shape[0], image.shape[1]), crops.size, crops.scale)
        cropped = jnp.einsum("ih,hwc,jw->ijc", rows, image, columns)
        matrix, offset = self._colour_change(colour, cropped)
        return jnp.clip(cropped @ matrix + offset, 0.0, 1.0)

    def _colour_change(self, key: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Everything that happens to colours as one product: pixels @ matrix [3, 3] + offset."""
        keys = jax.random.split(key, 6)
        luma = jnp.tile(jnp.asarray(LUMA)[:, None], (1, 3))  # pixels @ luma = grey pixels

        def factor(key: jax.Array, width: float) -> jax.Array:
            return jax.random.uniform(key, (), minval=1 - width, maxval=1 + width)

        bright, contrast, saturation = (
            factor(k, w) for k, w in zip(keys, (self.brightness, self.contrast, self.saturation), strict=False)
        )
        turn = jax.random.uniform(keys[3], (), minval=-self.hue, maxval=self.hue)
        mix = saturation * jnp.eye(3) + (1 - saturation) * luma
        matrix = bright * contrast * (mix @ grey_axis_rotation(turn))
        offset = bright * (1 - contrast) * jnp.mean(image @ luma)
        jittered = jax.random.uniform(keys[4]) < self.jitter_share
        matrix, offset = jnp.where(jittered, matrix, jnp.eye(3)), jnp.where(jittered, offset, 0.0)
        return jnp.where(jax.random.uniform(keys[5]) < self.grey_share, matrix @ luma, matrix), offset


def crop_matrices(
    key: jax.Array, shape: tuple[int, int], size: int, scale: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """A random crop, mirrored half of the time, as two resampling matrices [size, H] and [size, W].

    The share of the area is uniform in ``scale``, the aspect log-uniform in [3/4, 4/3] (Inception's recipe).
    """
    keys = jax.random.split(key, 4)
    area = jax.random.uniform(keys[0], (), minval=scale[0], maxval=scale[1])
    aspect = jnp.exp(jax.random.uniform(keys[1], (), minval=jnp.log(3 / 4), maxval=jnp.log(4 / 3)))
    sides = jnp.minimum(jnp.sqrt(area * jnp.stack([1 / aspect, aspect])), 1.0)
    starts = jax.random.uniform(keys[2], (2,)) * (1 - sides)
    rows = resampling_matrix(starts[0], sides[0], shape[0], size)
    columns = resampling_matrix(starts[1], sides[1], shape[1], size)
    return rows, jnp.where(jax.random.bernoulli(keys[3]), columns, columns[::-1])


def resampling_matrix(start: jax.Array, length: jax.Array, inputs: int, outputs: int) -> jax.Array:
    """Bilinear resampling, antialiased when it shrinks, of the part [start, start + length] of the unit interval.

    Returns:
        [outputs, inputs], rows sum to one.
    """
    centers = (start + (jnp.arange(outputs, dtype=jnp.float32) + 0.5) / outputs * length) * inputs
    support = jnp.maximum(length * inputs / outputs, 1.0)
    distance = jnp.abs(centers[:, None] - (jnp.arange(inputs, dtype=jnp.float32) + 0.5)) / support
    weights = jnp.maximum(1.0 - distance, 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def grey_axis_rotation(turns: jax.Array) -> jax.Array:
    """Rotation of RGB space about (1, 1, 1), [3, 3]: a change of hue (Rodrigues' formula)."""
    angle = 2 * jnp.pi * turns
    axis = jnp.full(3, 3**-0.5)
    cross = jnp.cross(jnp.eye(3), axis)
    return jnp.cos(angle) * jnp.eye(3) + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * jnp.outer(axis, axis)


@dataclass(frozen=True)
class VectorViews:
    """Copies with isotropic Gaussian noise.

    Attributes:
        count: views per example.
        noise: standard deviation, in units of the data.
    """

    count: int = 2
    noise: float = 0.05

    def __call__(self, vectors: jax.Array, key: jax.Array) -> list[jax.Array]:
        """Vectors [B, D] to one array [V, B, D]."""
        noise = jax.random.normal(key, (self.count, *vectors.shape), vectors.dtype)
        return [vectors + self.noise * noise]
