"""From compressed Jacobians to scores, with the error that is predicted for each."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jepa_jax.jacobian.function import Differentiable
from jepa_jax.numerics.bases import complement_basis
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.numerics.precision import LEVELS, NOISE, ROUNDING, Precision, as_coarse_as
from jepa_jax.scoring.cut_off import cut_off
from jepa_jax.scoring.forward_error import FORWARD_UNITS, OF_ONE_TOKEN, ON_A_GPU, USUAL_SIZE, forward_error
from jepa_jax.scoring.options import Numerics
from jepa_jax.short_table import short_table
from jepa_jax.spectrum import gaussian_score, jepa_score
from jepa_jax.spectrum.error import LITTLE, most_noise_bias, noise_bias, predicted_error, spread_of
from jepa_jax.spectrum.factor import Factor
from jepa_jax.spectrum.spectrum import all_values, for_each, structural_values


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "score",
        "score_error",
        "clipped",
        "level",
        "listing_score",
        "singular_values",
        "embedding",
        "gaussian_score",
        "layers",
    ],
    meta_fields=["log_volume_rank"],
)
@dataclass(frozen=True)
class ScoreResult:
    """Scores of a batch of B images; K is the embedding size.

    Attributes:
        score: [B], nats. Sum of log singular values over the structural rank (null directions
            projected out); higher = denser = more typical. Comparable across precisions.
        score_error: [B], nats. Predicted bound of the score's rounding error, which holds for at least 95% of images;
            from the image's own noise along the null directions, its spectrum, and how steep the encoder is there
            (`jepa_jax.spectrum.error`). With ``spectrum=False`` it may be up to 1.4 times as large. Infinite where
            values are ``clipped``.
        clipped: [B], int32: how many of the singular values that ``score`` sums lie below eps. The clip stands for
            each of them, whatever it is, so that from one on the score is no measurement: of an embedding that
            does not change with the image all are clipped, and the score is ``log_volume_rank`` log(eps). The
            smallest values of published encoders are hundreds of times eps.
        level: [B], int32: at which level of precision the image was scored, as a place in
            `jepa_jax.numerics.precision.LEVELS`; `precision` has the names.
        listing_score: [B], nats. The paper's listing: all K values, clipped at eps. Where an encoder
            has null directions it carries their rounding noise. NaN where the score alone was asked for.
        singular_values: [B, K], descending, of the whole Jacobian; [B, 0] where the score alone was asked for.
        embedding: [B, K].
        gaussian_score: [B], nats, or None. score + log N(embedding; 0, I), where the encoder is
            trained to Gaussian embeddings: a log density up to the data's dimension.
        log_volume_rank: number of singular values that ``score`` sums.
        layers: of each layer that was asked for, by its number from 1 on, the result of its own embedding [B, width]
            (`jepa_jax.encoders.layerwise` says which), without a ``gaussian_score``; all else is as for the encoder.
    """

    score: jax.Array
    score_error: jax.Array
    clipped: jax.Array
    level: jax.Array
    listing_score: jax.Array
    singular_values: jax.Array
    embedding: jax.Array
    gaussian_score: jax.Array | None
    log_volume_rank: int
    layers: dict[int, ScoreResult] = field(default_factory=dict)

    @property
    def with_layers(self) -> tuple[ScoreResult, ...]:
        """The result itself, and those of its layers."""
        return self, *self.layers.values()

    @property
    def precision(self) -> np.ndarray:
        """[B], text: at which level each image was scored, by the name that a score table has for it."""
        return np.array(LEVELS)[np.asarray(self.level)]

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self)
        if any(isinstance(leaf, Tracer) or not hasattr(leaf, "shape") for leaf in leaves):
            return f"ScoreResult(score={self.score!r}, ...)"  # within a program there are no numbers yet
        if np.ndim(self.score) != 1:
            return f"ScoreResult(score of shape {np.shape(self.score)}, log_volume_rank={self.log_volume_rank})"
        columns = {"score": np.asarray(self.score), "score_error": np.asarray(self.score_error)}
        columns |= {} if self.gaussian_score is None else {"gaussian_score": np.asarray(self.gaussian_score)}
        columns |= {"precision": self.precision, "clipped": np.asarray(self.clipped)}
        if not columns["clipped"].any():
            del columns["clipped"]
        images, total = len(columns["score"]), self.embedding.shape[-1]
        of = f"{self.log_volume_rank} of {total} singular values"
        return f"ScoreResult: {images:,} image{'s' * (images != 1)}, {of} in a score; nats\n{short_table(columns)}"


class Measured(NamedTuple):
    """What the scores of some images are read off: n of them, with m null directions each; in the working dtype."""

    embedding: jax.Array  # [n, K]
    nulls: jax.Array  # [n, K, m]
    factor: Factor  # of the Jacobians; each leaf [n, ...]
    width: jax.Array  # [n], number of inputs that the Jacobian's rows were computed for
    input_rms: jax.Array  # [n], of the input's values


class Volume(NamedTuple):
    """The log-volumes of some Jacobians, null directions projected out, and what their errors depend on; each [n]."""

    score: jax.Array  # sum of log singular values, nats
    inverse_squares: jax.Array  # sum of 1 / sigma^2
    noise_bias: jax.Array  # nats by which noise has lifted the score
    clipped: jax.Array  # int32, how many values lie below the clip


def read_scores(
    numerics: Numerics, function: Differentiable, inputs: int, rank: int, coarsest: np.dtype, measured: Measured
) -> ScoreResult:
    """From the compressed Jacobians of some images to their scores.

    Args:
        numerics: how.
        function: what is scored.
        inputs: of the function, D.
        rank: number of singular values that count.
        coarsest: of the dtypes in which the function computes.
        measured: of the images.
    """
    embedding, factor = measured.embedding, measured.factor
    with float64_scope(factor.dtype == jnp.float64):
        nulls = measured.nulls.astype(factor.dtype)
        basis = for_each(complement_basis, nulls, platform=numerics.platform)
        level = as_coarse_as(numerics.precision, coarsest)
        noise = _noise(numerics, level, inputs, measured.width.astype(factor.dtype), factor, nulls, basis)
        values, listing = _listing(numerics, inputs, factor)
        by_values = numerics.spectrum or inputs < basis.shape[-1]
        volume = (_volume_by_values if by_values else _volume)(numerics, inputs, factor, basis, noise)
        error = _score_error(numerics, function, rank, coarsest, measured, volume, noise)
        # Where the function itself gives no number, its derivative may still look like one.
        known = jnp.all(jnp.isfinite(embedding), axis=-1)
        score, listing = (jnp.where(known, value, jnp.nan) for value in (volume.score, listing))
        result = ScoreResult(
            score=score,
            score_error=jnp.where(volume.clipped > 0, jnp.inf, jnp.where(known, error, jnp.nan)),
            clipped=volume.clipped,
            level=jnp.full(embedding.shape[0], LEVELS.index(numerics.precision), jnp.int32),
            listing_score=listing,
            singular_values=values,
            embedding=embedding,
            gaussian_score=gaussian_score(score, embedding) if function.gaussian else None,
            log_volume_rank=rank,
        )
        # float64 must not leave this scope: outside of it, arithmetic on it warns or fails.
        return jax.tree.map(
            lambda leaf: leaf.astype(embedding.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, result
        )


class Noise(NamedTuple):
    """The rounding noise of some Jacobians along one direction of the embedding each, J^T n; each [n]."""

    norm: jax.Array  # of all of it
    within: jax.Array  # of its share in the space that the Jacobian's rows span


def _noise(
    numerics: Numerics,
    level: Precision,
    inputs: int,
    width: jax.Array,
    factor: Factor,
    nulls: jax.Array,
    basis: jax.Array,
) -> Noise:
    size = basis.shape[-1]
    if not nulls.shape[-1]:  # none is seen, and how it lies is not known: as if evenly among the inputs
        relative = NOISE[level] if numerics.noise is None else numerics.noise
        norm = relative * jax.vmap(lambda f: f.norm())(factor) / factor.outputs**0.5
        return Noise(norm, norm * jnp.sqrt(jnp.minimum(1, size / width)))
    # The first direction is exact; a second one is zero up to LayerNorm's epsilon only.
    direction = nulls[..., 0] / jnp.linalg.norm(nulls[..., 0], axis=-1, keepdims=True)
    norm = jax.vmap(lambda f, n: f.noise_along(n))(factor, direction)
    if inputs <= size:  # the rows span all inputs
        return Noise(norm, norm)
    within = for_each(lambda f, n, b: f.noise_within(n, b), factor, direction, basis, platform=numerics.platform)
    return Noise(norm, jnp.where(jnp.isfinite(within), jnp.minimum(within, norm), norm))


def _listing(numerics: Numerics, inputs: int, factor: Factor) -> tuple[jax.Array, jax.Array]:
    """All singular values [n, K] and the paper's listing of them [n]; [n, 0] and NaN where they are not wanted."""
    images = factor.matrix.shape[0]
    if not numerics.spectrum:
        return jnp.zeros((images, 0), factor.dtype), jnp.full(images, jnp.nan, factor.dtype)
    values = for_each(lambda f: all_values(f, inputs), factor, platform=numerics.platform)
    return values, jepa_score(values, eps=numerics.eps)


def _volume_by_values(numerics: Numerics, inputs: int, factor: Factor, basis: jax.Array, noise: Noise) -> Volume:
    """By an eigensolver, which sees each value: those under the clip, and those in the noise."""
    kept = for_each(lambda f, b: structural_values(f, b, inputs), factor, basis, platform=numerics.platform)
    inverse_squares = jnp.sum(1 / jnp.maximum(kept, numerics.eps) ** 2, axis=-1)
    clipped = jnp.sum(kept < numerics.eps, axis=-1, dtype=jnp.int32)
    bias = jax.vmap(noise_bias)(kept, noise.norm)
    return Volume(jepa_score(kept, eps=numerics.eps), inverse_squares, bias, clipped)


def _volume(numerics: Numerics, inputs: int, factor: Factor, basis: jax.Array, noise: Noise) -> Volume:
    """Without an eigensolver, unless an image has a value that may lie under the clip, or in the noise."""
    total, inverse_squares = for_each(lambda f, b: f.log_volume(b), factor, basis, platform=numerics.platform)
    shares = noise.norm**2 * inverse_squares
    enough = (inverse_squares < numerics.eps**-2) & (shares <= LITTLE)
    found = Volume(total, inverse_squares, most_noise_bias(shares), jnp.zeros(total.shape, jnp.int32))

    def by_values_where_needed() -> Volume:
        # Image by image: what one needs must not change another's numbers.
        return jax.tree.map(
            functools.partial(jnp.where, enough), found, _volume_by_values(numerics, inputs, factor, basis, noise)
        )

    return jax.lax.cond(jnp.all(enough), lambda: found, by_values_where_needed)


def _score_error(
    numerics: Numerics,
    function: Differentiable,
    rank: int,
    coarsest: np.dtype,
    measured: Measured,
    volume: Volume,
    noise: Noise,
) -> jax.Array:
    """Bound of the scores' errors, [n], nats: of noise, of the products, of the forward pass, and of their dtype."""
    embedding, dtype = measured.embedding, measured.factor.dtype
    level = as_coarse_as(numerics.precision, coarsest)
    norm = jax.vmap(lambda f: f.norm())(measured.factor)
    spread = spread_of(norm, volume.inverse_squares, rank)
    forward, unit = jnp.asarray(FORWARD_UNITS, dtype), ROUNDING[level]
    if (vit := function.vit) is not None:
        size = jnp.maximum(measured.input_rms, USUAL_SIZE).astype(dtype)
        condition = norm * size / jnp.linalg.norm(embedding, axis=-1).astype(dtype)
        forward = forward_error(vit, condition, spread)
        unit *= 1.0 if vit.averages_tokens else OF_ONE_TOKEN.get(numerics.precision, 1.0)
    if numerics.platform == "gpu":
        forward = ON_A_GPU * forward
    error = predicted_error(
        volume.noise_bias,
        volume.inverse_squares,
        noise.within,
        spread,
        rank=rank,
        unit=unit,
        forward=forward * float(jnp.finfo(coarsest).eps) / 2,
        cut_off=cut_off(numerics.platform, numerics.precision, vit) if vit else 0.0,
    )
    # The result is rounded to the working precision, by up to half a unit in its last place.
    return jnp.hypot(error, 0.5 * jnp.abs(volume.score) * float(jnp.finfo(embedding.dtype).eps))
