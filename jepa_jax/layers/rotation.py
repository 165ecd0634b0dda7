"""Rotations of pairs of values: of queries and keys on the way out, and of their cotangents on the way back.

Value i of the first half of an axis and value i of its second half are a pair.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jepa_jax.numerics.products import Products


class Rotation(NamedTuple):
    """Cosines and sines of the angles, of each token and pair, [N, dh / 2] each; of one token [dh / 2]."""

    cosine: jax.Array
    sine: jax.Array


def rotate(values: jax.Array, rotation: Rotation, axis: int = -1) -> jax.Array:
    """Turn the pairs along an axis; cosines and sines have as many axes as ``values``, or fewer in front."""
    first, second = jnp.split(values, 2, axis=axis)
    cosine, sine = rotation
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=axis)


def rotate_back(products: Products, cotangent: jax.Array, rotation: Rotation, axis: int = -1) -> jax.Array:
    """The transpose of `rotate`, which is its inverse: of cotangents as they are stored."""
    back = Rotation(rotation.cosine, -rotation.sine)
    return products.stored(rotate(cotangent.astype(rotation.cosine.dtype), back, axis))


def of_parts(rotation: Rotation, count: int, axis: int) -> Rotation:
    """A rotation for so many parts side by side, which then are an axis more: values stand still.

    Args:
        rotation: of queries and keys.
        count: 3 for query, value and key; 2 for value and key; 1 for query alone, as in `jepa_jax.layers.heads`.
        axis: where the parts are in the result.
    """
    still = Rotation(jnp.ones_like(rotation.cosine), jnp.zeros_like(rotation.sine))
    parts = {1: (rotation,), 2: (still, rotation), 3: (rotation, still, rotation)}[count]
    return Rotation(*(jnp.stack(each, axis=axis) for each in zip(*parts, strict=True)))
