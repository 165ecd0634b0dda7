"""How far a score may be from the exact one: predicted for each image from its own noise and spectrum.

Rounding moves a Jacobian from J to J + E in three ways.

* What is rounded row by row is noise of the same size in every direction of the embedding. The null directions show
  it: there J is zero, and E^T n, of norm g, is what is left. It lifts every value, sigma^2 -> sigma^2 + g^2, so the
  score is too high by -1/2 sum log(1 - g^2 / sigma^2) with sigma as measured; and it tilts each value at random. That
  is done by what of it lies within the space of the L rows of J, of norm w: by w / (sigma sqrt(L)) each.
* What all rows share (weights, attention, the point itself) is rounded once, and scales values instead: K independent
  relative errors of some rounding units each, more where the spectrum is spread out.
* Matrix units that cut off their sums make all values too small alike: the score by K times as much.

How much lies within is a question of where it arose. Noise of as many independent numbers as there are inputs, D, has
w^2 = g^2 L / D: next to nothing. But what is rounded before the way back comes to the inputs goes on through the same
layers as the rows. Behind a class token in the first block, all but the last step of that way is one vector wide:
noise of few dimensions, like the rows themselves, and most of it within their space. So w is read off as g is: E^T n
is a vector among the inputs, and J J^T knows its share in the space of the rows.

It is taken to lie evenly over the L directions there. Where it does not, it is smaller along those of small values, as
signal and noise go through the same layers: the prediction is then too large (twice, behind the first block of a
random ViT), and not too small. Its part along the one direction of a small value is no estimate: it is one number.

Against float64 on ViTs the first term explains bfloat16 and the second the finer levels. Of the second, the forward
pass is the larger part in float32: how large, `jepa_jax.scoring.forward_error` says, which knows the encoder. Tests
hold the prediction to at least 95% of images; and to within five times the error in the median, on published spectra
with noise, or 4.2 times by the root mean square, on a trained encoder.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

TYPICAL_SPREAD = 10.0
"""`spread_of` a spectrum whose values are moved by one rounding unit of the products each; more with its root."""

SHARED_DEVIATIONS = 3.0
SLOPE_DEVIATIONS = 2.0
"""Standard deviations that the prediction allows for."""

CUT_OFF_TIMES = 1.5
"""How much of what is cut off the prediction allows for: its sign is known, what else errs is not."""

LOST = 0.99
"""Share of a value's square that noise may explain before the value counts as lost: 2.3 nats each."""

LITTLE = 0.5
"""Sum of these shares over all values up to which `most_noise_bias` is at most 1.4 times `noise_bias`."""


def noise_bias(values: jax.Array, noise_norm: jax.Array) -> jax.Array:
    """Nats by which noise has lifted the sum of logs of singular values.

    Args:
        values: [L], as measured, noise included.
        noise_norm: norm of the noise along one direction, in the units of the values.
    """
    share = jnp.minimum((noise_norm / jnp.maximum(values, jnp.finfo(values.dtype).tiny)) ** 2, LOST)
    return -0.5 * jnp.sum(jnp.log1p(-share))


def most_noise_bias(shares: jax.Array) -> jax.Array:
    """The largest `noise_bias` of any values whose shares add up to this.

    -1/2 log(1 - share) is convex, so that is where one value has all of it; spread over many it is half their sum.

    Args:
        shares: noise_norm^2 times the sum of 1 / sigma^2.
    """
    return -0.5 * jnp.log1p(-jnp.minimum(shares, LOST))


def spread_of(norm: jax.Array, inverse_squares: jax.Array, rank: int) -> jax.Array:
    """rms(sigma) rms(1 / sigma), from |J|, the sum of 1 / sigma^2 and the number of values."""
    return norm * jnp.sqrt(inverse_squares) / rank


def predicted_error(
    bias: jax.Array,
    inverse_squares: jax.Array,
    noise_within: jax.Array,
    spread: jax.Array,
    *,
    rank: int,
    unit: float,
    forward: jax.Array | float,
    cut_off: float = 0.0,
) -> jax.Array:
    """Bound of a score's error, nats; about two standard deviations.

    Args:
        bias: of `noise_bias`.
        inverse_squares: sum of 1 / sigma^2.
        noise_within: norm of its share in the space that the rows of the Jacobian span.
        spread: of the values, `spread_of`.
        rank: number of values.
        unit: relative error of a typical spectrum's values by the products.
        forward: relative error of the values by the forward pass.
        cut_off: relative amount by which all values are too small.
    """
    slope = noise_within * jnp.sqrt(inverse_squares / rank)
    shared = rank**0.5 * (unit * jnp.sqrt(spread / TYPICAL_SPREAD) + forward)
    scattered = jnp.hypot(SLOPE_DEVIATIONS * slope, SHARED_DEVIATIONS * shared)
    # The bias is what noise adds on average; the rest scatters around it.
    return bias + jnp.hypot(scattered, CUT_OFF_TIMES * rank * cut_off)
