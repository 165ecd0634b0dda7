"""From compressed Jacobians to scores, with the error that is predicted for each."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jepa_jax.encoders import ViTSpec
from jepa_jax.encoders.null_directions import complement_basis
from jepa_jax.jacobian.precision import LADDER, NOISE, ROUNDING
from jepa_jax.scoring.options import Options
from jepa_jax.spectrum import gaussian_score, jepa_score
from jepa_jax.spectrum.error import (
    FORWARD_UNITS,
    LITTLE,
    forward_error,
    most_noise_bias,
    noise_bias,
    predicted_error,
    spread_of,
)
from jepa_jax.spectrum.spectrum import (
    algorithm_scope,
    all_values,
    for_each,
    log_volume,
    resolve_method,
    structural_values,
)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["score", "score_error", "rung", "listing_score", "singular_values", "embedding", "gaussian_score"],
    meta_fields=["log_volume_rank"],
)
@dataclass(frozen=True)
class ScoreResult:
    """Scores of a batch of B images; K is the embedding size.

    Attributes:
        score: [B], nats. Sum of log singular values over the structural rank (null directions
            projected out); higher = denser = more typical. Comparable across precisions.
        score_error: [B], nats. Predicted bound of the score's rounding error, from the image's own noise along
            the null directions, its spectrum, and how steep the encoder is there (`jepa_jax.spectrum.error`). With
            ``spectrum=False`` it may be up to 1.4 times as large.
        rung: [B], int32: at which precision the image was scored, as a place in
            `jepa_jax.jacobian.precision.LADDER`.
        listing_score: [B], nats. The paper's listing: all K values, clipped at eps. Where an encoder
            has null directions it carries their rounding noise. NaN where the score alone was asked for.
        singular_values: [B, K], descending, of the whole Jacobian; [B, 0] where the score alone was asked for.
        embedding: [B, K].
        gaussian_score: [B], nats, or None. score + log N(embedding; 0, I), where the encoder is
            trained to Gaussian embeddings: a log density up to the data's dimension.
        log_volume_rank: number of singular values that ``score`` sums.
    """

    score: jax.Array
    score_error: jax.Array
    rung: jax.Array
    listing_score: jax.Array
    singular_values: jax.Array
    embedding: jax.Array
    gaussian_score: jax.Array | None
    log_volume_rank: int


class Measured(NamedTuple):
    """What the scores of an image are read off."""

    embedding: jax.Array  # [K]
    nulls: jax.Array  # [K, m]
    factor: jax.Array  # of the Jacobian, see `jepa_jax.spectrum`
    width: jax.Array  # number of inputs that the Jacobian's rows were computed for
    input_rms: jax.Array  # of the input's values


def read_scores(options: Options, inputs: int, rank: int, vit: ViTSpec | None, measured: Measured) -> ScoreResult:
    """From the compressed Jacobians of some images to their scores; ``vit`` is the encoder, if it is one of ours."""
    embedding, nulls, factor, width, input_rms = measured
    algorithm = resolve_method(options.method, embedding.dtype)
    with algorithm_scope(algorithm, embedding.dtype):
        nulls = nulls.astype(factor.dtype)
        basis = for_each(complement_basis, nulls)
        gauge = jax.vmap(functools.partial(_noise_gauge, options, algorithm))(nulls, factor)

        def from_values() -> tuple[jax.Array, jax.Array, jax.Array]:
            kept = for_each(lambda f, b: structural_values(algorithm, f, b, inputs), factor, basis)
            inverse_squares = jnp.sum(1 / jnp.maximum(kept, options.eps) ** 2, axis=-1)
            return jepa_score(kept, eps=options.eps), inverse_squares, jax.vmap(noise_bias)(kept, gauge)

        def from_volume() -> tuple[jax.Array, jax.Array, jax.Array]:
            total, inverse_squares = for_each(functools.partial(log_volume, algorithm), factor, basis)
            shares = gauge**2 * inverse_squares
            # The spectrum itself is needed where a value may lie under the clip, or in the noise.
            enough = (inverse_squares < options.eps**-2) & (shares <= LITTLE)
            by_volume = total, inverse_squares, most_noise_bias(shares)
            # Image by image: what one needs must not change another's numbers.
            return jax.lax.cond(
                jnp.all(enough),
                lambda: by_volume,
                lambda: jax.tree.map(functools.partial(jnp.where, enough), by_volume, from_values()),
            )

        values = jnp.zeros((embedding.shape[0], 0), factor.dtype)
        listing = jnp.full(embedding.shape[0], jnp.nan, factor.dtype)
        if options.spectrum:
            values = for_each(lambda f: all_values(algorithm, f, inputs), factor)
            listing = jepa_score(values, eps=options.eps)
        by_values = options.spectrum or inputs < basis.shape[-1]
        total, inverse_squares, bias = from_values() if by_values else from_volume()
        working = jnp.finfo(embedding.dtype)
        size = jax.vmap(algorithm.size)(factor)
        spread = spread_of(size, inverse_squares, rank)
        units = jnp.asarray(FORWARD_UNITS, factor.dtype)
        if vit is not None:
            condition = size * input_rms.astype(size.dtype) / jnp.linalg.norm(embedding, axis=-1).astype(size.dtype)
            units = forward_error(vit.depth, vit.pooling != "class_token", condition, spread)
        error = predicted_error(
            bias,
            inverse_squares,
            gauge,
            spread,
            rank=rank,
            inputs=width.astype(factor.dtype),
            unit=ROUNDING[options.plan.precision],
            forward=units * float(working.eps) / 2,
        )
        result = ScoreResult(
            score=total,
            # The result is rounded to the working precision, by up to half a unit in its last place.
            score_error=jnp.hypot(error, 0.5 * jnp.abs(total) * float(working.eps)),
            rung=jnp.full(embedding.shape[0], LADDER.index(options.plan.precision), jnp.int32),
            listing_score=listing,
            singular_values=values,
            embedding=embedding,
            gaussian_score=gaussian_score(total, embedding) if options.gaussian else None,
            log_volume_rank=rank,
        )
        # float64 must not leave this scope: outside of it, arithmetic on it warns or fails.
        return jax.tree.map(
            lambda leaf: leaf.astype(embedding.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, result
        )


def _noise_gauge(options: Options, algorithm: ModuleType, nulls: jax.Array, factor: jax.Array) -> jax.Array:
    """Norm of the Jacobian's rounding noise along one direction of the embedding."""
    if nulls.shape[-1]:
        # The first direction is exact; a second one is zero up to LayerNorm's epsilon only.
        return algorithm.residual(factor, nulls[:, 0] / jnp.linalg.norm(nulls[:, 0]))
    relative = NOISE[options.plan.precision] if options.noise is None else options.noise
    return relative * algorithm.size(factor) / factor.shape[0] ** 0.5
