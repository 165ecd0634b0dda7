"""Encoder + Jacobian + spectrum = one jitted function from images to scores."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jepa_jax.encoders import Encoder
from jepa_jax.encoders.null_directions import complement_basis
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian import require_sound_backend
from jepa_jax.jacobian.jacobian import BatchFunction, output_size, spectral_columns
from jepa_jax.jacobian.plan import Engine, JacobianPlan, Mode
from jepa_jax.jacobian.precision import LADDER, NOISE, ROUNDING, Precision, working_dtype
from jepa_jax.spectrum import Method, gaussian_score, jepa_score
from jepa_jax.spectrum.error import noise_bias, predicted_error
from jepa_jax.spectrum.scores import DEFAULT_EPS
from jepa_jax.spectrum.spectrum import (
    algorithm_scope,
    all_values,
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
            the null directions and its spectrum (`jepa_jax.spectrum.error`). With ``spectrum=False`` it is
            larger where noise reaches the smallest values.
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


Parallel = Literal["shard_map", "pmap"]


@dataclass(frozen=True)
class Options:
    """How scores are computed; hashable, so that each choice is compiled once.

    Attributes:
        plan: how the Jacobian is computed.
        method: the spectrum's algorithm.
        eps: clip of singular values before the log.
        spectrum: whether singular values are wanted, or the score alone.
        mesh: devices, with axes ``data`` and ``rows``; None for the default device.
        noise: relative error of the Jacobian at this precision, for encoders without null directions.
        gaussian: whether the encoder was trained to Gaussian embeddings.
    """

    plan: JacobianPlan
    method: Method = "auto"
    eps: float = DEFAULT_EPS
    spectrum: bool = True
    mesh: Mesh | None = None
    noise: float | None = None
    gaussian: bool = False

    def __post_init__(self):
        if self.mesh is not None and tuple(self.mesh.axis_names) != ("data", "rows"):
            raise ArgumentError(
                f"mesh has axes {tuple(self.mesh.axis_names)}; it needs ('data', 'rows'), as "
                "jax.make_mesh((devices, 1), ('data', 'rows')) makes it."
            )


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


def score_fn(
    encoder: Encoder | BatchFunction, *, parallel: Parallel = "shard_map", **options: Any
) -> tuple[Callable[[Any, jax.Array], ScoreResult], Any]:
    """The pure, jitted function behind `score`, for use inside a program of one's own.

    Args:
        encoder: as for `score`.
        parallel: ``shard_map`` shares work as ``mesh`` says. ``pmap`` is the same over all local devices through
            `jax.pmap`, for programs that are built on it; it takes no mesh.
        options: the keyword arguments of `score`, without ``memory`` and ``tolerance``.

    Returns:
        ``(fn, params)`` with ``fn(params, batch) -> ScoreResult``. With ``precision="float64"``, call
        it under ``jax.enable_x64(True)``.
    """
    function, params = pure_function(encoder)
    chosen = score_options(encoder, **options)
    if parallel == "pmap":
        if chosen.mesh is not None:
            raise ArgumentError("parallel='pmap' uses all local devices and takes no mesh; use parallel='shard_map'.")
        return functools.partial(_score_by_pmap, function, chosen), params
    if parallel != "shard_map":
        raise ArgumentError(f"parallel={parallel!r} is unknown; use 'shard_map' or 'pmap'.")
    return functools.partial(compute_scores, function, chosen), params


def pure_function(encoder: Encoder | BatchFunction) -> tuple[Differentiable, Any]:
    """What is scored, and its parameters."""
    require_sound_backend()
    if isinstance(encoder, Encoder):
        return encoder.function, encoder.params
    if not callable(encoder):
        raise ArgumentError(f"encoder is a {type(encoder).__name__}; pass an Encoder or a function of a batch.")
    return PlainFunction(encoder), {}


def score_options(
    encoder: Encoder | BatchFunction,
    *,
    precision: Precision = "float32",
    mode: Mode = "auto",
    engine: Engine = "auto",
    block_size: int | None = None,
    images_per_step: int | None = None,
    **others: Any,
) -> Options:
    """The keyword arguments of `jepa_jax.score`, checked and joined."""
    plan = JacobianPlan(mode, engine, precision, block_size, images_per_step)
    ours = isinstance(encoder, Encoder)
    plan.uses_rules(ours)
    return Options(plan, **others, gaussian=ours and encoder.spec.gaussian_embedding)


@functools.partial(jax.jit, static_argnums=(0, 1))
def compute_scores(function: Differentiable, options: Options, params: Any, batch: jax.Array) -> ScoreResult:
    if options.plan.precision == "float64" and not jax.config.read("jax_enable_x64"):
        raise ArgumentError("precision='float64' needs JAX's float64: call the function under jax.enable_x64(True).")
    # "highest": full float32 products. JAX's default is TF32 on NVIDIA GPUs and bfloat16 on TPUs.
    with jax.default_matmul_precision("highest"):
        params, batch = _cast((params, batch), jnp.dtype(working_dtype(options.plan.precision)))
        if options.mesh is None:
            return _score_here(function, options, params, batch)
        return _score_on_mesh(function, options, params, batch)


def _score_on_mesh(function: Differentiable, options: Options, params: Any, batch: jax.Array) -> ScoreResult:
    """Images shared among the devices of axis ``data``; rows of each image's Jacobian among those of ``rows``."""
    mesh, size = options.mesh, batch.shape[0]
    assert mesh is not None
    surplus = -size % mesh.shape["data"]
    batch = jnp.concatenate([batch, jnp.repeat(batch[-1:], surplus, axis=0)])
    here = functools.partial(_score_here, function, options)
    shared = jax.shard_map(here, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=False)
    return jax.tree.map(lambda leaf: leaf[:size], shared(params, batch))


@functools.lru_cache(maxsize=32)
def _pmapped(function: Differentiable, options: Options) -> Callable[[Any, jax.Array], ScoreResult]:
    return jax.pmap(functools.partial(compute_scores, function, options), in_axes=(None, 0))


def _score_by_pmap(function: Differentiable, options: Options, params: Any, batch: jax.Array) -> ScoreResult:
    """Images shared among all local devices."""
    size, devices = batch.shape[0], jax.local_device_count()
    batch = jnp.concatenate([batch, jnp.repeat(batch[-1:], -size % devices, axis=0)])
    result = _pmapped(function, options)(params, batch.reshape(devices, -1, *batch.shape[1:]))
    return jax.tree.map(lambda leaf: leaf.reshape(batch.shape[0], *leaf.shape[2:])[:size], result)


def _score_here(function: Differentiable, options: Options, params: Any, batch: jax.Array) -> ScoreResult:
    """The scores of one device's images."""
    outputs = output_size(functools.partial(function, params), batch)
    inputs = math.prod(batch.shape[1:])
    step = options.plan.step(inputs, outputs, batch.shape[0])
    measure = functools.partial(_measure, function, options, outputs, params)
    rank = min(inputs, outputs - _null_count(function, params, batch))

    def some(images: jax.Array) -> ScoreResult:
        # A batch axis of one would turn plain products into batched ones, which are slower.
        measured = _added_axis(measure(images[0])) if images.shape[0] == 1 else jax.vmap(measure)(images)
        return _read_scores(options, inputs, rank, measured)

    # Filled up to whole steps: a smaller last step would be a program of its own, and on CPUs XLA may run it beside
    # the main one, where the two can wait for each other's threads for ever.
    size = batch.shape[0]
    batch = jnp.concatenate([batch, jnp.repeat(batch[-1:], -size % step, axis=0)])
    result = jax.lax.map(some, batch.reshape(-1, step, *batch.shape[1:]))
    return jax.tree.map(lambda leaf: leaf.reshape(batch.shape[0], *leaf.shape[2:])[:size], result)


def _null_count(function: Differentiable, params: Any, batch: jax.Array) -> int:
    nulls = jax.eval_shape(function.embed_with_nulls, params, batch[0])[1]
    return 0 if nulls is None else nulls.shape[-1]


def _added_axis(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


class _Measured(NamedTuple):
    """What the scores of an image are read off."""

    embedding: jax.Array  # [K]
    nulls: jax.Array  # [K, m]
    factor: jax.Array  # of the Jacobian, see `jepa_jax.spectrum`
    width: jax.Array  # number of inputs that the Jacobian's rows were computed for


def _measure(function: Differentiable, options: Options, outputs: int, params: Any, image: jax.Array) -> _Measured:
    """Embedding, null directions and compressed Jacobian of one image."""
    embedding, nulls = function.embed_with_nulls(params, image)
    nulls = jnp.zeros((outputs, 0), embedding.dtype) if nulls is None else nulls
    algorithm = resolve_method(options.method, image.dtype)
    devices = options.mesh.shape["rows"] if options.mesh else 1
    rows = None
    if devices > 1:
        each = math.ceil(outputs / devices)
        rows = jax.lax.axis_index("rows") * each + jnp.arange(each)
    columns = spectral_columns(function, params, image, options.plan, rows)
    width = jnp.asarray(columns.shape[0], embedding.dtype)
    if devices > 1:  # from some rows and all inputs to all rows and some inputs
        columns = jnp.pad(columns, ((0, -columns.shape[0] % devices), (0, 0)))
        columns = jax.lax.all_to_all(columns, "rows", split_axis=0, concat_axis=1, tiled=True)[:, :outputs]
    with algorithm_scope(algorithm, image.dtype):
        factor = algorithm.compress(columns)
        if devices > 1:
            factor = algorithm.merge(jax.lax.all_gather(factor, "rows"))
        return _Measured(embedding, nulls, factor, width)


def _read_scores(options: Options, inputs: int, rank: int, measured: _Measured) -> ScoreResult:
    """From the compressed Jacobians of some images to their scores."""
    embedding, nulls, factor, width = measured
    algorithm = resolve_method(options.method, embedding.dtype)
    with algorithm_scope(algorithm, embedding.dtype):
        nulls = nulls.astype(factor.dtype)
        basis = jax.vmap(complement_basis)(nulls)
        gauge = jax.vmap(functools.partial(_noise_gauge, options, algorithm))(nulls, factor)

        def from_values() -> tuple[jax.Array, jax.Array, jax.Array]:
            kept = jax.vmap(lambda f, b: structural_values(algorithm, f, b, inputs))(factor, basis)
            inverse_squares = jnp.sum(1 / jnp.maximum(kept, options.eps) ** 2, axis=-1)
            return jepa_score(kept, eps=options.eps), inverse_squares, jax.vmap(noise_bias)(kept, gauge)

        def from_volume() -> tuple[jax.Array, jax.Array, jax.Array]:
            total, inverse_squares = jax.vmap(lambda f, b: log_volume(algorithm, f, b))(factor, basis)
            # The clip decides where a value may lie under it: then the spectrum itself is needed.
            return jax.lax.cond(
                jnp.all(inverse_squares < options.eps**-2),
                lambda: (total, inverse_squares, 0.5 * gauge**2 * inverse_squares),
                from_values,
            )

        values = jnp.zeros((embedding.shape[0], 0), factor.dtype)
        listing = jnp.full(embedding.shape[0], jnp.nan, factor.dtype)
        if options.spectrum:
            values = jax.vmap(lambda f: all_values(algorithm, f, inputs))(factor)
            listing = jepa_score(values, eps=options.eps)
        by_values = options.spectrum or inputs < basis.shape[-1]
        total, inverse_squares, bias = from_values() if by_values else from_volume()
        working = jnp.finfo(embedding.dtype)
        error = predicted_error(
            bias,
            inverse_squares,
            gauge,
            rank=rank,
            inputs=width.astype(factor.dtype),
            unit=ROUNDING[options.plan.precision],
            forward_unit=float(working.eps) / 2,
        )
        result = ScoreResult(
            score=total,
            # The result is rounded to the working precision, by up to half a unit in its last place.
            score_error=jnp.hypot(error, 0.5 * jnp.abs(total) * float(working.eps) / 2),
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
    rows = jnp.eye(factor.shape[0], dtype=factor.dtype)
    sizes = jax.vmap(lambda row: algorithm.residual(factor, row))(rows)
    relative = NOISE[options.plan.precision] if options.noise is None else options.noise
    return relative * jnp.sqrt(jnp.mean(sizes**2))


def _cast(tree: Any, dtype: jnp.dtype) -> Any:
    """Floating-point leaves to ``dtype``; strict about anything else."""

    def cast(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ArgumentError(
                f"batch has dtype {leaf.dtype}; pass preprocessed floating-point images (Encoder.preprocess)."
            )
        return leaf.astype(dtype)

    return jax.tree.map(cast, tree)
