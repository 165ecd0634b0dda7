"""Rotations of pairs of values: of queries and keys on the way out, and of their cotangents on the way back.

Value i of the first half of an axis and value i of its second half are a pair (a, b). With an angle of each,

    (a, b)  ->  (a cos s - b sin s,  b cos t + a sin t).

Where s = t, as DINOv3 has it, that is a rotation; V-JEPA 2 has s and t differ in most pairs (see
`jepa_jax.layers.tubelet_rotary`), and what goes back is the transpose, which then is no inverse.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jepa_jax.numerics.products import Products


class Rotation(NamedTuple):
    """Cosines and sines of the angles, of each token and value, [N, dh] each; of one token [dh]."""

    cosine: jax.Array
    sine: jax.Array


def rotate(values: jax.Array, rotation: Rotation, axis: int = -1) -> jax.Array:
    """Turn the pairs along an axis; cosines and sines have as many axes as ``values``, or fewer in front."""
    first, second = jnp.split(values, 2, axis=axis)
    (cos_first, cos_second), (sin_first, sin_second) = _halves(rotation, axis)
    return jnp.concatenate([first * cos_first - second * sin_first, second * cos_second + first * sin_second], axis)


def rotate_back(products: Products, cotangent: jax.Array, rotation: Rotation, axis: int = -1) -> jax.Array:
    """The transpose of `rotate`: of cotangents as they are stored."""
    first, second = jnp.split(cotangent.astype(rotation.cosine.dtype), 2, axis=axis)
    (cos_first, cos_second), (sin_first, sin_second) = _halves(rotation, axis)
    turned = [first * cos_first + second * sin_second, second * cos_second - first * sin_first]
    return products.stored(jnp.concatenate(turned, axis))


def _halves(rotation: Rotation, axis: int) -> list[list[jax.Array]]:
    """Cosines, then sines, of the first and the second of each pair."""
    return [jnp.split(each, 2, axis=axis) for each in rotation]


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
