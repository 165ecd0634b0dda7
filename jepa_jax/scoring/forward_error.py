"""How much larger an encoder makes a score's error than its products' rounding: by its forward pass, as the point at
which its Jacobian is taken is rounded, and by the one token that it may all go through.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.numerics.precision import Precision

FORWARD_UNITS = 12.0
"""Relative error that a forward pass brings into singular values, in rounding units, where nothing is known of it."""

STEEP_UNITS = 3.5
"""The same of a ViT, for `forward_error`: fitted to the errors of 16 encoders of 1 to 12 blocks, trained and random,
of every family, whose own units go from 5 to 70. It holds for 94% to all of the images of each."""

AVERAGED = 0.42
"""Share of that where tokens are averaged: their errors partly cancel."""

OF_ONE_TOKEN: dict[Precision, float] = {"bfloat16": 2.6, "float16": 2.6, "tensorfloat32": 2.2}
"""Times the error by products that all rows share, where an embedding is one token's and not a mean: little averages
out there. Random ViTs, 192 and 384 wide, of 6 and 12 blocks and 17 to 257 tokens, had errors as if of 3.2 to 4.4 (at
``float16``), and 1.4 to 3.1 (TF32). Three times as much is allowed for: 1.8 deviations of the largest."""

ON_A_GPU = 2.0
"""How much larger a forward pass' error is there: a ViT-S and a DINOv3 had 1.75 times what the formula says, on an
H100. Why was not looked into."""

USUAL_SIZE = 1.0
"""What an image's values count as at least, in their root mean square: recipes bring them to about one. Of a flat grey
image they are near zero; but its tokens, and what rounds them, are as large as any other's, by their positions and
biases. Errors of jepa-tiny were up to 6.6 times the prediction there, and are up to 1.2 times with this."""


def forward_error(vit: ViTSpec, condition: jax.Array, spread: jax.Array) -> jax.Array:
    """Relative error that a ViT's forward pass brings into singular values, in rounding units.

    Layers add up as a random walk does; a rounding error made early grows as much as the encoder is steep, and weighs
    more on small values.

    Args:
        vit: its architecture.
        condition: |J| rms(x) / |z|: relative change of the embedding by a relative change of the image; with
            `USUAL_SIZE` for rms(x) where that is less.
        spread: of the structural values, `jepa_jax.spectrum.error.spread_of`.
    """
    return STEEP_UNITS * (AVERAGED if vit.averages_tokens else 1.0) * jnp.sqrt(vit.depth * condition * spread)
