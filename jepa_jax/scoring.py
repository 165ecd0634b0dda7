"""Encoder + Jacobian + spectrum = one jitted function from images to scores."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian import require_sound_backend
from jepa_jax.jacobian.jacobian import (
    BatchFunction,
    Engine,
    Mode,
    default_images_per_step,
    one_jacobian,
    output_size,
)
from jepa_jax.spectrum import Method, gaussian_score, jepa_score, structural_spectrum
from jepa_jax.spectrum.scores import DEFAULT_EPS
from jepa_jax.spectrum.spectrum import float64_scope

Precision = Literal["float32", "float64"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["score", "listing_score", "singular_values", "embedding", "gaussian_score"],
    meta_fields=["log_volume_rank"],
)
@dataclass(frozen=True)
class ScoreResult:
    """Scores of a batch of B images; K is the embedding size.

    Attributes:
        score: [B], nats. Sum of log singular values over the structural rank (null directions
            projected out); higher = denser = more typical. Comparable across precisions.
        listing_score: [B], nats. The paper's listing: all K values, clipped at eps. Where an encoder
            has null directions it carries their rounding noise.
        singular_values: [B, K], descending, of the whole Jacobian.
        embedding: [B, K].
        gaussian_score: [B], nats, or None. score + log N(embedding; 0, I), where the encoder is
            trained to Gaussian embeddings: a log density up to the data's dimension.
        log_volume_rank: number of singular values that ``score`` sums.
    """

    score: jax.Array
    listing_score: jax.Array
    singular_values: jax.Array
    embedding: jax.Array
    gaussian_score: jax.Array | None
    log_volume_rank: int


@dataclass(frozen=True)
class Options:
    """How scores are computed; hashable, so that each choice is compiled once."""

    precision: Precision = "float32"
    mode: Mode = "auto"
    engine: Engine = "auto"
    method: Method = "auto"
    eps: float = DEFAULT_EPS
    block_size: int | None = None
    images_per_step: int | None = None
    gaussian: bool = False

    def __post_init__(self):
        if self.precision not in ("float32", "float64"):
            raise ArgumentError(f"precision={self.precision!r} is unknown; use 'float32' or 'float64'.")
        if self.engine not in get_args(Engine):
            raise ArgumentError(f"engine={self.engine!r} is unknown; use one of {get_args(Engine)}.")
        for name in ("block_size", "images_per_step"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentError(f"{name}={value} must be at least 1.")


class Differentiable(Protocol):
    """What is scored: a pure function of parameters and a batch, hashable, knowing its null directions."""

    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """[B, ...] -> [B, K]."""
        ...

    def embed_with_nulls(self, params: Any, image: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """One example to its embedding [K] and its null directions [K, m], or None."""
        ...


@dataclass(frozen=True)
class PlainFunction:
    """A user's function without parameters; its Jacobian is taken to have full rank."""

    fn: BatchFunction

    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """[B, ...] -> [B, K]."""
        del params
        return self.fn(images)

    def embed_with_nulls(self, params: Any, image: jax.Array) -> tuple[jax.Array, None]:
        """The embedding [K]; of null directions nothing is known."""
        del params
        return self.fn(image[None])[0], None


def score(
    encoder: Encoder | BatchFunction,
    batch: jax.Array | np.ndarray,
    *,
    precision: Precision = "float32",
    mode: Mode = "auto",
    engine: Engine = "auto",
    method: Method = "auto",
    eps: float = DEFAULT_EPS,
    block_size: int | None = None,
    images_per_step: int | None = None,
) -> ScoreResult:
    """JEPA-SCORE of a batch (arXiv 2510.05949, eq. 5): the log-volume of the encoder's Jacobian.

    Departs from the paper in one thing: ``score`` leaves out singular values that are zero by the
    encoder's construction (`jepa_jax.encoders.null_directions`), which are rounding noise and differ
    between frameworks, precisions and batch sizes. ``listing_score`` is the paper's, noise and all.

    Args:
        encoder: an `Encoder`, or any JAX function ``[B, ...] -> [B, K]`` that treats examples
            independently. A function is compiled once per object: pass the same one again.
        batch: preprocessed images [B, H, W, 3] (`Encoder.preprocess`), or the function's input.
        precision: of the forward pass and the Jacobian. ``float32`` means full float32 products on
            every backend, never TF32 or bfloat16. ``float64`` is slow, for studies.
        mode: ``forward``, ``reverse``, or ``auto`` (see `jepa_jax.jacobian`).
        engine: ``rules``, ``generic``, or ``auto`` (see `jepa_jax.jacobian`).
        method: ``svd``, ``gram``, or ``auto`` (see `jepa_jax.singular_values`).
        eps: clip of singular values before the log.
        block_size: Jacobian rows (or columns) in one pass.
        images_per_step: images computed side by side.

    Returns:
        A `ScoreResult`. An image with a NaN or an infinity scores NaN.

    Raises:
        ArgumentError: an argument is unfit; BackendError: the backend computes wrong numbers.
    """
    fn, params = score_fn(
        encoder,
        precision=precision,
        mode=mode,
        engine=engine,
        method=method,
        eps=eps,
        block_size=block_size,
        images_per_step=images_per_step,
    )
    with float64_scope(precision == "float64"):
        return fn(params, jnp.asarray(batch))


def score_fn(encoder: Encoder | BatchFunction, **options: Any) -> tuple[Callable[[Any, jax.Array], ScoreResult], Any]:
    """The pure, jitted function behind `score`, for use inside a program of one's own.

    Args:
        encoder: as for `score`.
        options: the keyword arguments of `score`.

    Returns:
        ``(fn, params)`` with ``fn(params, batch) -> ScoreResult``. With ``precision="float64"``, call
        it under ``jax.enable_x64(True)``.
    """
    require_sound_backend()
    if isinstance(encoder, Encoder):
        chosen = Options(**options, gaussian=encoder.spec.gaussian_embedding)
        return functools.partial(_score, encoder.function, chosen), encoder.params
    if not callable(encoder):
        raise ArgumentError(f"encoder is a {type(encoder).__name__}; pass an Encoder or a function of a batch.")
    return functools.partial(_score, PlainFunction(encoder), Options(**options)), {}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _score(function: Differentiable, options: Options, params: Any, batch: jax.Array) -> ScoreResult:
    if options.precision == "float64" and not jax.config.read("jax_enable_x64"):
        raise ArgumentError("precision='float64' needs JAX's float64: call the function under jax.enable_x64(True).")
    # "highest": full float32 products. JAX's default is TF32 on NVIDIA GPUs and bfloat16 on TPUs.
    with jax.default_matmul_precision("highest"):
        params, batch = _cast((params, batch), jnp.dtype(options.precision))
        outputs = output_size(functools.partial(function, params), batch)
        inputs = math.prod(batch.shape[1:])

        def one(image: jax.Array) -> tuple[jax.Array, ...]:
            return _score_one(function, options, params, image)

        step = options.images_per_step or default_images_per_step(inputs, outputs)
        values, kept, embedding = jax.lax.map(one, batch, batch_size=min(step, batch.shape[0]))
        with float64_scope(kept.dtype == jnp.float64):
            total = jepa_score(kept, eps=options.eps)
            result = ScoreResult(
                score=total,
                listing_score=jepa_score(values, eps=options.eps),
                singular_values=values,
                embedding=embedding,
                gaussian_score=gaussian_score(total, embedding) if options.gaussian else None,
                log_volume_rank=kept.shape[-1],
            )
            # float64 must not leave this scope: outside of it, arithmetic on it warns or fails.
            return _cast(result, jnp.dtype(options.precision))


def _score_one(
    function: Differentiable, options: Options, params: Any, image: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All singular values, the structural ones, and the embedding of one image."""
    embedding, nulls = function.embed_with_nulls(params, image)
    matrix = one_jacobian(
        function, params, image, mode=options.mode, engine=options.engine, block_size=options.block_size
    )
    return *structural_spectrum(matrix, nulls, options.method), embedding


def _cast(tree: Any, dtype: jnp.dtype) -> Any:
    """Floating-point leaves to ``dtype``; strict about anything else."""

    def cast(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ArgumentError(
                f"batch has dtype {leaf.dtype}; pass preprocessed floating-point images (Encoder.preprocess)."
            )
        return leaf.astype(dtype)

    return jax.tree.map(cast, tree)
