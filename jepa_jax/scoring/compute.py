"""Encoder + Jacobian + spectrum = one jitted function from images to scores."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.backend_check import require_sound_backend
from jepa_jax.jacobian.fold import Kernels
from jepa_jax.jacobian.function import AnyEncoder, Differentiable, output_size, parameters_in, pure_function
from jepa_jax.jacobian.jacobian import Differential, differentials, prepare
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.batches import cut, filled, multiple
from jepa_jax.numerics.precision import working_dtype
from jepa_jax.scoring.meshes import require_threads
from jepa_jax.scoring.options import Numerics, ScoreKeywords, ScoreOptions
from jepa_jax.scoring.readings import Measured, ScoreResult, read_scores
from jepa_jax.spectrum.factor import Factor
from jepa_jax.spectrum.methods import resolve_method
from jepa_jax.spectrum.spectrum import for_each

Parallel = Literal["shard_map", "pmap"]


def score_fn(
    encoder: AnyEncoder, *, parallel: Parallel = "shard_map", **options: Unpack[ScoreKeywords]
) -> tuple[Callable[[Any, jax.Array], ScoreResult], Any]:
    """The pure, jitted function behind `score`, for use inside a program of one's own.

    Args:
        encoder: as for `score`.
        parallel: ``shard_map`` shares work as ``mesh`` says. ``pmap`` is the same over all local devices through
            `jax.pmap`, for programs that are built on it; it takes no mesh.
        options: the fields of `ScoreOptions`, without ``memory`` and ``tolerance``. The precision is by default
            float32: a pure function cannot score again what is unsure.

    Returns:
        ``(fn, params)`` with ``fn(params, batch) -> ScoreResult``. With ``precision="float64"``, call
        it under ``jax.enable_x64(True)``. So call `jax.vmap` and `jax.grad` of it at any precision where the spectrum
        is taken in float64 (``method="gram"``, the default on CPUs); it maps over a batch by itself.

    Raises:
        ArgumentError: an argument is invalid, or one of those that a pure function does not take.
        BackendError: the backend computes wrong numbers.
    """
    function, params = pure_function(encoder)
    options.setdefault("precision", "float32")
    chosen = ScoreOptions(**options)
    function = function.with_layers(chosen.layers)
    if chosen.precision == "auto":
        raise ArgumentError(
            "precision='auto': a pure function cannot score an image again at another level; name a level, or use "
            "jepa_jax.score."
        )
    for name in ("memory", "tolerance"):
        if (value := getattr(chosen, name)) is not None:
            raise ArgumentError(f"{name}={value!r} is not for score_fn, a pure function; leave it to jepa_jax.score.")
    numerics = chosen.numerics
    require_sound_backend(numerics.jacobian, function.vit)
    if parallel == "pmap":
        if numerics.mesh is not None:
            raise ArgumentError("parallel='pmap' uses all local devices and takes no mesh; use parallel='shard_map'.")
        require_threads(jax.local_devices())
        return functools.partial(_score_by_pmap, function, numerics), params
    if parallel != "shard_map":
        raise ArgumentError(f"parallel={parallel!r} is unknown; use 'shard_map' or 'pmap'.")
    return functools.partial(compute_scores, function, numerics), params


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def prepare_kernels(
    function: Differentiable, options: JacobianOptions, shape: tuple[int, ...], params: Any
) -> Kernels:
    """What pullbacks need of the parameters alone, for examples of a shape: once for as many batches as there are.

    Args:
        function: what is scored.
        options: how its Jacobian is computed.
        shape: of an example, [*input].
        params: of the function; floating-point leaves, cast to the precision's working dtype.
    """
    with jax.default_matmul_precision("highest"):
        params = parameters_in(params, jnp.dtype(working_dtype(options.precision)))
        return prepare(function, params, shape, options, compact=True)


@functools.partial(jax.jit, static_argnums=(0, 1))
def compute_scores(
    function: Differentiable, numerics: Numerics, params: Any, batch: jax.Array, prepared: Kernels | None = None
) -> ScoreResult:
    """The scores of a batch: one program for each function, choice of numerics and shapes.

    Args:
        function: what is scored.
        numerics: how.
        params: of the function; floating-point leaves, cast to the precision's working dtype.
        batch: [B, ...], floating point, cast likewise.
        prepared: what `prepare_kernels` made of the parameters; by default it is made here, for this batch.

    Returns:
        A `ScoreResult`, in the working dtype. On a mesh, shared among its devices along axis ``data``.

    Raises:
        ArgumentError: while it is traced: a dtype or shape is invalid, or float64 is off.
    """
    if numerics.precision == "float64" and not jax.config.read("jax_enable_x64"):
        raise ArgumentError("precision='float64' needs JAX's float64: call the function under jax.enable_x64(True).")
    # "highest": full float32 products. JAX's default is TF32 on NVIDIA GPUs and bfloat16 on TPUs.
    with jax.default_matmul_precision("highest"):
        params, batch = cast_inputs(params, batch, jnp.dtype(working_dtype(numerics.precision)))
        if prepared is None:
            prepared = prepare(function, params, batch.shape[1:], numerics.jacobian, compact=True)
        if numerics.mesh is None:
            return _score_here(function, numerics, params, prepared, batch)
        return _score_on_mesh(function, numerics, params, prepared, batch)


def _score_on_mesh(
    function: Differentiable, numerics: Numerics, params: Any, prepared: Kernels, batch: jax.Array
) -> ScoreResult:
    """Images shared among the devices of axis ``data``; rows of each image's Jacobian among those of ``rows``."""
    mesh, size = numerics.mesh, batch.shape[0]
    assert mesh is not None
    here = functools.partial(_score_here, function, numerics)
    shared = jax.shard_map(here, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P("data"), check_vma=False)
    return cut(shared(params, prepared, filled(batch, multiple(size, mesh.shape["data"]))), size)


@functools.lru_cache(maxsize=32)
def _pmapped(function: Differentiable, numerics: Numerics) -> Callable[[Any, jax.Array], ScoreResult]:
    return jax.pmap(functools.partial(compute_scores, function, numerics), in_axes=(None, 0))


def _score_by_pmap(function: Differentiable, numerics: Numerics, params: Any, batch: jax.Array) -> ScoreResult:
    """Images shared among all local devices."""
    size, devices = batch.shape[0], jax.local_device_count()
    whole = filled(batch, multiple(size, devices))
    result = _pmapped(function, numerics)(params, whole.reshape(devices, -1, *whole.shape[1:]))
    return cut(_steps_joined(result), size)


def _score_here(
    function: Differentiable, numerics: Numerics, params: Any, prepared: Kernels, batch: jax.Array
) -> ScoreResult:
    """The scores of one device's images."""
    size, shape = batch.shape[0], batch.shape[1:]
    inputs = math.prod(shape)
    cuts = [*(function.cut(params, number) for number in function.exit_numbers), (function, params)]
    outputs = [output_size(functools.partial(one, of_one), batch) for one, of_one in cuts]
    coarsest = function.coarsest_dtype(params, batch)
    step = numerics.jacobian.step(inputs, sum(outputs), size)
    measure = functools.partial(_measure, function, numerics, outputs, params, prepared)

    def read(number: int, measured: Differential, input_rms: jax.Array) -> ScoreResult:
        embedding, nulls, transpose = measured
        compress = functools.partial(_compressed, numerics, outputs[number])
        factor = for_each(compress, transpose, platform=numerics.platform)
        width = jnp.full(embedding.shape[:1], transpose.shape[1], embedding.dtype)
        rank = min(inputs, outputs[number] - nulls.shape[-1])
        found = Measured(embedding, nulls, factor, width, input_rms)
        return read_scores(numerics, cuts[number][0], inputs, rank, coarsest, found)

    def some(images: jax.Array) -> ScoreResult:
        # A batch axis of one would turn plain products into batched ones, which are slower.
        measured = _added_axis(measure(images[0])) if images.shape[0] == 1 else jax.vmap(measure)(images)
        input_rms = jnp.sqrt(jnp.mean(images**2, axis=tuple(range(1, images.ndim))))
        return _with_layers(function, [read(i, each, input_rms) for i, each in enumerate(measured)])

    # Filled up to whole steps: a smaller last step would be a program of its own, and on CPUs XLA may run it beside
    # the main one, where the two can wait for each other's threads for ever.
    steps = filled(batch, multiple(size, step)).reshape(-1, step, *shape)
    return cut(_steps_joined(jax.lax.map(some, steps)), size)


def _with_layers(function: Differentiable, results: list[ScoreResult]) -> ScoreResult:
    """One result of those of a function's exits, its own last."""
    *exits, own = results
    layers = dict.fromkeys(function.layer_numbers, dataclasses.replace(own, gaussian_score=None))
    return dataclasses.replace(own, layers=layers | dict(zip(function.exit_numbers, exits, strict=True)))


def _added_axis(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


def _steps_joined(result: ScoreResult) -> ScoreResult:
    """Results [n, step, ...] to [n * step, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), result)


def _measure(
    function: Differentiable, numerics: Numerics, outputs: list[int], params: Any, prepared: Kernels, image: jax.Array
) -> list[Differential]:
    """Embedding, null directions and Jacobian (what this device computes of it) of one image, at each exit."""
    devices = numerics.mesh.shape["rows"] if numerics.mesh else 1
    rows = None
    if devices > 1:
        shares = [math.ceil(count / devices) for count in outputs]
        rows = [jax.lax.axis_index("rows") * each + jnp.arange(each, dtype=jnp.int32) for each in shares]
    return differentials(function, params, prepared, image, numerics.jacobian, rows)


def _compressed(numerics: Numerics, outputs: int, transpose: jax.Array) -> Factor:
    """The factor of one Jacobian; of what all devices have computed of it, where they share its rows."""
    dtype = transpose.dtype
    algorithm = resolve_method(numerics.method, dtype, numerics.platform)
    devices = numerics.mesh.shape["rows"] if numerics.mesh else 1
    if devices > 1:  # from some rows and all inputs to all rows and some inputs
        transpose = jnp.pad(transpose, ((0, -transpose.shape[0] % devices), (0, 0)))
        transpose = jax.lax.all_to_all(transpose, "rows", split_axis=0, concat_axis=1, tiled=True)[:, :outputs]
    with algorithm.scope(dtype):
        factor = algorithm.compress(transpose)
        return factor if devices == 1 else type(factor).merge(jax.lax.all_gather(factor, "rows"))


def cast_inputs(params: Any, batch: jax.Array, dtype: jnp.dtype) -> tuple[Any, jax.Array]:
    """Parameters and a batch of floating-point numbers in a dtype."""
    if not jnp.issubdtype(batch.dtype, jnp.floating):
        raise ArgumentError(
            f"batch has dtype {batch.dtype}; pass floating-point inputs, as the encoder takes them (of pictures, what "
            "Encoder.preprocess returns)."
        )
    return parameters_in(params, dtype), batch.astype(dtype)
