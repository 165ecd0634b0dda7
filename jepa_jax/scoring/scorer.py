"""Scoring batch after batch: memory is planned, a full device survived, and what is unsure is scored anew."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders.parameters import same_arrays
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.backend_check import require_sound_backend
from jepa_jax.jacobian.fold import Kernels
from jepa_jax.jacobian.function import AnyEncoder, pure_function
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.numerics.precision import LEVELS, NOISE, Precision, levels_from
from jepa_jax.scoring.options import Numerics, ScoreKeywords, ScoreOptions
from jepa_jax.scoring.programs import Program, ProgramFactory, out_of_memory, placing, unplanned
from jepa_jax.scoring.readings import ScoreResult


def score(encoder: AnyEncoder, batch: jax.Array | np.ndarray, **options: Unpack[ScoreKeywords]) -> ScoreResult:
    """JEPA-SCORE of a batch (arXiv 2510.05949, eq. 5): the log-volume of the encoder's Jacobian.

    Departs from the paper in one thing: ``score`` leaves out singular values that are zero by the
    encoder's construction (`jepa_jax.layers.layer_norm`), which are rounding noise and differ
    between frameworks, precisions and batch sizes. ``listing_score`` is the paper's, noise and all.

    Args:
        encoder: an `Encoder`; an `OwnEncoder` (docs/own-encoders.md); or any JAX function ``[B, ...] -> [B, K]`` that
            treats examples independently. A function is compiled once per object, with what it has closed over as it
            is then: pass the same one again, and another one where that has changed. Of a Flax nnx module, or a method
            of one, the weights are taken at each call.
        batch: preprocessed images [B, H, W, 3] (`Encoder.preprocess`), or the function's input.
        options: the fields of `ScoreOptions`, such as ``precision="bfloat16_3x"`` or ``spectrum=False``.

    Returns:
        A `ScoreResult`. An image with a NaN or an infinity scores NaN.

    Raises:
        ArgumentError: an argument is invalid.
        BackendError: the backend computes wrong numbers.
        OutOfMemoryError: not even one row of one image's Jacobian fits.

    Example:
        >>> import jepa_jax as jj
        >>> import numpy as np
        >>> encoder = jj.load_encoder("jepa-tiny")
        >>> pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
        >>> result = jj.score(encoder, encoder.preprocess(pictures))
        >>> result.score.shape, result.singular_values.shape == result.embedding.shape
        ((2,), True)
        >>> result.precision.tolist()
        ['float32', 'float32']
    """
    return Scorer(encoder, **options)(batch)


_programs: OrderedDict[Any, Program] = OrderedDict()
"""By function, options, shapes and budget, the last used last: compiled once, and what ran out of memory is not tried
again, for as long as it is remembered."""

_MOST_PROGRAMS = 32
"""Remembered. One takes tens to hundreds of memory mappings, and Linux grants a process 65,530; its key holds the
function, and with that whatever arrays a lambda has closed over."""

_compiling = threading.RLock()
"""Of whoever changes them: batches may be scored in several threads."""


class Scorer:
    """Scores batch after batch by one encoder; one program is compiled per shape and level of precision.

    Args:
        encoder: an `Encoder` or any function, as for `score`.
        options: how scores are computed; by default as `ScoreOptions` has it.
        report: called with a sentence when a plan does not fit into memory and a smaller one takes its place.
        changes: fields of `ScoreOptions`, in place of those of ``options``.

    Raises:
        ArgumentError: an option is invalid.
        BackendError: the backend computes wrong numbers.
    """

    def __init__(
        self,
        encoder: AnyEncoder,
        options: ScoreOptions | None = None,
        report: Callable[[str], None] = lambda message: None,
        **changes: Unpack[ScoreKeywords],
    ):
        function, self.params = pure_function(encoder)
        asked = dataclasses.replace(options or ScoreOptions(), **changes)
        self.function = function.with_layers(asked.layers)
        self.options = asked.resolved(self.function.layered)
        self._noise = self.options.noise_by_level  # now, so that what is missing is said before anything is computed
        require_sound_backend(self.options.numerics.jacobian, self.function.vit)
        self.report = report
        self._prepared: tuple[list[Any], dict[Any, Kernels | None]] = [], {}
        self._preparing = threading.Lock()
        self._alone = threading.Lock()  # of a program that is planned to have all the memory

    def __call__(self, batch: jax.Array | np.ndarray) -> ScoreResult:
        """Score a batch, as `jepa_jax.score` does.

        Args:
            batch: preprocessed images [B, H, W, 3], or the function's input. A new B compiles anew: fill up the last
                batch.

        Returns:
            A `ScoreResult` of B images.

        Raises:
            ArgumentError: the batch has another shape or dtype than the encoder takes.
            OutOfMemoryError: not even one row of one image's Jacobian fits.
        """
        result, tolerance = self._run(self.options.numerics, batch), self.options.tolerance
        if tolerance is None and self.options.level != "float16":
            return result
        return self._refined(result, batch, math.inf if tolerance is None else tolerance)

    def program(self, batch: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> Program:
        """The compiled program for batches of this shape and dtype, compiled now if it is not yet."""
        return self._program(self.options.numerics, jax.ShapeDtypeStruct(batch.shape, batch.dtype))

    def _program(self, numerics: Numerics, batch: jax.ShapeDtypeStruct) -> Program:
        key = self._key(numerics, batch)
        require_sound_backend(numerics.jacobian, self.function.vit)  # each level that is climbed to, as well
        with _compiling:
            if key not in _programs:
                with float64_scope(numerics.precision == "float64"):
                    _programs[key] = self._factory.largest(numerics, batch)
            _programs.move_to_end(key)
            while len(_programs) > _MOST_PROGRAMS:
                _programs.popitem(last=False)
            return _programs[key]

    def _key(self, numerics: Numerics, batch: jax.ShapeDtypeStruct) -> Any:
        leaves, tree = jax.tree.flatten(self.params)
        parameters = tree, tuple((leaf.shape, str(leaf.dtype), getattr(leaf, "sharding", None)) for leaf in leaves)
        # Under JAX's float64, wide arrays enter as they are, and else as float32.
        wide = numerics.precision == "float64" or bool(jax.config.read("jax_enable_x64"))
        return self.function, numerics, parameters, batch.shape, str(batch.dtype), self.options.memory, wide

    @property
    def _factory(self) -> ProgramFactory:
        return ProgramFactory(self.function, self.params, self.options.memory, self.report, self.options.platform)

    def _run(self, numerics: Numerics, batch: jax.Array | np.ndarray) -> ScoreResult:
        with float64_scope(numerics.precision == "float64"):
            batch = _array(batch)
            shape = jax.ShapeDtypeStruct(batch.shape, batch.dtype)
            while True:
                program = self._program(numerics, shape)
                try:
                    with contextlib.nullcontext() if program.at_once > 1 else self._alone:
                        weights = self.params, self._prepared_by(program, batch.shape[1:])
                        return jax.block_until_ready(program.run(weights, batch))
                except jax.errors.JaxRuntimeError as error:
                    if not out_of_memory(error):
                        raise
                    self._make_smaller(numerics, program, shape)

    def _prepared_by(self, program: Program, shape: tuple[int, ...]) -> Kernels | None:
        """The kernels of the parameters, made once for each level and shape of an example, until they are replaced."""
        key = unplanned(program.plan), shape
        with self._preparing:
            arrays = jax.tree.leaves(self.params)
            if not same_arrays(self._prepared[0], arrays):
                self._prepared = arrays, {}
            _, kernels = self._prepared
            if key not in kernels:
                kernels[key] = jax.block_until_ready(program.prepare(self.params))
            return kernels[key]

    def _make_smaller(self, numerics: Numerics, program: Program, shape: jax.ShapeDtypeStruct) -> None:
        """Put a smaller program in the place of one that ran out of memory, unless another thread has done it."""
        key = self._key(numerics, shape)
        with _compiling:
            if _programs.get(key) is program:
                self._prepared = [], {}  # the smaller one may do with smaller kernels
                _programs[key] = self._factory.smaller(numerics, program.plan, program.at_once, shape)

    def _refined(self, result: ScoreResult, batch: jax.Array | np.ndarray, tolerance: float) -> ScoreResult:
        """Score anew, one level up at a time, whatever may be off by more than a tolerance, or is out of range."""
        numerics = self.options.numerics
        merged = jax.tree.map(np.array, result)
        for level in levels_from(numerics.precision, numerics.platform)[1:]:
            unsure = np.flatnonzero(
                np.any(
                    [
                        self._gains(each, level) & (each.score_error > tolerance) | _out_of_range(each)
                        for each in merged.with_layers
                    ],
                    axis=0,
                )
            )
            if unsure.size == 0:
                continue
            jacobian = dataclasses.replace(numerics.jacobian, precision=level)
            noise = self._noise.get(level)
            numerics = dataclasses.replace(numerics, jacobian=jacobian, noise=noise)
            # In batches of the same shape, so that nothing new is compiled for each number of images.
            again = self._run(numerics, np.asarray(batch)[np.resize(unsure, len(batch))])
            for old, new in zip(jax.tree.leaves(merged), jax.tree.leaves(again), strict=True):
                old[unsure] = np.asarray(new)[: unsure.size]
            if again.score.dtype != merged.score.dtype:  # float64, rounded to the dtype of the others
                for each in merged.with_layers:
                    rounding = np.spacing(np.abs(each.score[unsure])) / 2
                    each.score_error[unsure] = np.hypot(each.score_error[unsure], rounding)
        return merged

    def _gains(self, result: ScoreResult, level: Precision) -> np.ndarray:
        """Which images of a batch would be much more exact at a level.

        TF32 gives float16 range, and no digits; what the clip has decided is no measurement at any level.
        """
        noise = NOISE | self._noise
        reached = np.array([noise[each] for each in LEVELS])[np.asarray(result.level)]
        return (noise[level] <= reached / 2) & (np.asarray(result.clipped) == 0)


def _array(batch: Any) -> jax.Array:
    try:
        with placing(f"a batch of shape {np.shape(batch)}"):
            return jnp.asarray(batch)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"batch is of type {type(batch).__name__} and no array of numbers; pass an array [B, ...], as "
            "Encoder.preprocess makes one of pictures."
        ) from error


def _out_of_range(result: ScoreResult) -> np.ndarray:
    """Which images of a batch have an embedding and no score: their cotangents were too large for float16."""
    return np.all(np.isfinite(result.embedding), axis=-1) & ~np.isfinite(result.score)
