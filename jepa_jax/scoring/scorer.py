"""Scoring batch after batch: memory is planned, a full device survived, and what is unsure is scored anew."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.jacobian import BatchFunction
from jepa_jax.jacobian.plan import Engine, Mode
from jepa_jax.jacobian.precision import Precision, next_rung
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.scoring.noise import Noise, noise_by_rung
from jepa_jax.scoring.options import Options, pure_function, score_options
from jepa_jax.scoring.programs import Program, ProgramFactory, out_of_memory, placing
from jepa_jax.scoring.readings import ScoreResult
from jepa_jax.spectrum import Method
from jepa_jax.spectrum.scores import DEFAULT_EPS


def score(
    encoder: Encoder | BatchFunction,
    batch: jax.Array | np.ndarray,
    *,
    precision: Precision = "float32",
    mode: Mode = "auto",
    engine: Engine = "auto",
    method: Method = "auto",
    eps: float = DEFAULT_EPS,
    spectrum: bool = True,
    block_size: int | None = None,
    images_per_step: int | None = None,
    mesh: Mesh | None = None,
    noise: Noise | None = None,
    tolerance: float | None = None,
    memory: int | None = None,
) -> ScoreResult:
    """JEPA-SCORE of a batch (arXiv 2510.05949, eq. 5): the log-volume of the encoder's Jacobian.

    Departs from the paper in one thing: ``score`` leaves out singular values that are zero by the
    encoder's construction (`jepa_jax.encoders.null_directions`), which are rounding noise and differ
    between frameworks, precisions and batch sizes. ``listing_score`` is the paper's, noise and all.

    Args:
        encoder: an `Encoder`, or any JAX function ``[B, ...] -> [B, K]`` that treats examples
            independently. A function is compiled once per object: pass the same one again.
        batch: preprocessed images [B, H, W, 3] (`Encoder.preprocess`), or the function's input.
        precision: of the Jacobian's products, see `jepa_jax.jacobian.precision`; the forward pass is in
            float32 on every rung below ``float64``. ``float32`` means full float32 products on
            every backend, never TF32 or bfloat16. ``float64`` is slow, for studies.
        mode: see `jepa_jax.jacobian.plan.JacobianPlan`, as for the next three.
        engine: ``rules`` or ``generic``.
        block_size: rows or columns in one pass.
        images_per_step: images side by side.
        method: the spectrum's algorithm, see `jepa_jax.singular_values`.
        eps: clip of singular values before the log.
        spectrum: False computes ``score`` alone, without an eigensolver.
        mesh: devices to share the work, with axes ``data`` (images) and ``rows`` (rows of each image's
            Jacobian: for latency, or where one device's memory is too small), as
            ``jax.make_mesh((4, 2), ("data", "rows"))`` makes it.
        noise: relative noise of the Jacobian at this precision, as `calibrate_noise` measures it, for an encoder
            without null directions; by default what is typical of ViTs. With ``tolerance``, of every rung
            that may be reached: ``{"tensorfloat32": ..., "bfloat16_3x": ..., "float32": ...}``.
        tolerance: nats. Images whose ``score_error`` is larger are scored again at a finer precision.
        memory: bytes that scoring may take; by default most of an accelerator, half of a computer's free memory.

    Returns:
        A `ScoreResult`. An image with a NaN or an infinity scores NaN.

    Raises:
        ArgumentError: an argument is unfit; BackendError: the backend computes wrong numbers; OutOfMemoryError:
            not even one row of one image's Jacobian fits.
    """
    scorer = Scorer(
        encoder,
        precision=precision,
        mode=mode,
        engine=engine,
        method=method,
        eps=eps,
        spectrum=spectrum,
        block_size=block_size,
        images_per_step=images_per_step,
        mesh=mesh,
        noise=noise,
        tolerance=tolerance,
        memory=memory,
    )
    return scorer(batch)


_programs: OrderedDict[Any, Program] = OrderedDict()
"""By function, options, shapes and budget, the last used last: compiled once, and what ran out of memory is not tried
again, for as long as it is remembered."""

_MOST_PROGRAMS = 32
"""Remembered. One takes tens to hundreds of memory mappings, and Linux grants a process 65,530; its key holds the
function, and with that whatever arrays a lambda has closed over."""

_compiling = threading.RLock()
"""Of whoever changes them: batches may be scored in several threads."""


class Scorer:
    """Scores batches of one encoder; one program is compiled per shape and rung.

    Args:
        encoder: an `Encoder` or any function, as for `score`.
        memory: bytes that scoring may take; by default most of an accelerator, half of a computer's free memory.
        tolerance: nats. An image whose ``score_error`` is larger is scored again one rung of precision up, and so
            on to float64.
        noise: as for `score`.
        report: is told in words when a plan has to be changed.
        options: the other keyword arguments of `score`.
    """

    def __init__(
        self,
        encoder: Encoder | BatchFunction,
        *,
        memory: int | None = None,
        tolerance: float | None = None,
        noise: Noise | None = None,
        report: Callable[[str], None] = lambda message: None,
        **options: Any,
    ):
        for name, value in (("memory", memory), ("tolerance", tolerance)):
            if value is not None and not value > 0:
                raise ArgumentError(f"{name}={value} must be positive.")
        self.function, self.params = pure_function(encoder)
        self.options = score_options(encoder, noise=noise, **options)
        self.noise = noise_by_rung(noise, self.options.plan.precision, climbs=tolerance is not None)
        self.memory = memory
        self.tolerance = tolerance
        self.report = report
        self._alone = threading.Lock()  # of a program that is planned to have all the memory

    def __call__(self, batch: jax.Array | np.ndarray) -> ScoreResult:
        """Score a batch [B, ...]."""
        result = self._run(self.options, batch)
        return result if self.tolerance is None else self._refined(result, batch, self.tolerance)

    def program(self, batch: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> Program:
        """The compiled program for batches of this shape and dtype, compiled now if it is not yet."""
        return self._program(self.options, jax.ShapeDtypeStruct(batch.shape, batch.dtype))

    def _program(self, options: Options, batch: jax.ShapeDtypeStruct) -> Program:
        key = self._key(options, batch)
        with _compiling:
            if key not in _programs:
                with float64_scope(options.plan.precision == "float64"):
                    _programs[key] = self._factory.largest(options, batch)
            _programs.move_to_end(key)
            while len(_programs) > _MOST_PROGRAMS:
                _programs.popitem(last=False)
            return _programs[key]

    def _key(self, options: Options, batch: jax.ShapeDtypeStruct) -> Any:
        leaves, tree = jax.tree.flatten(self.params)
        parameters = tree, tuple((leaf.shape, str(leaf.dtype), getattr(leaf, "sharding", None)) for leaf in leaves)
        return self.function, options, parameters, batch.shape, str(batch.dtype), self.memory

    @property
    def _factory(self) -> ProgramFactory:
        return ProgramFactory(self.function, self.params, self.memory, self.report)

    def _run(self, options: Options, batch: jax.Array | np.ndarray) -> ScoreResult:
        with float64_scope(options.plan.precision == "float64"):
            with placing(f"a batch of shape {np.shape(batch)}"):
                batch = jnp.asarray(batch)
            shape = jax.ShapeDtypeStruct(batch.shape, batch.dtype)
            while True:
                program = self._program(options, shape)
                try:
                    with contextlib.nullcontext() if program.lanes > 1 else self._alone:
                        return jax.block_until_ready(program.run(self.params, batch))
                except jax.errors.JaxRuntimeError as error:
                    if not out_of_memory(error):
                        raise
                    self._make_smaller(options, program, shape)

    def _make_smaller(self, options: Options, program: Program, shape: jax.ShapeDtypeStruct) -> None:
        """Put a smaller program in the place of one that ran out of memory, unless another thread has done it."""
        key = self._key(options, shape)
        with _compiling:
            if _programs.get(key) is program:
                _programs[key] = self._factory.smaller(options, program.plan, program.lanes, shape)

    def _refined(self, result: ScoreResult, batch: jax.Array | np.ndarray, tolerance: float) -> ScoreResult:
        """Score anew, one rung up at a time, whatever may be off by more than a tolerance."""
        options = self.options
        merged = jax.tree.map(np.array, result)
        while (rung := next_rung(options.plan.precision)) is not None:
            unsure = np.flatnonzero(merged.score_error > tolerance)
            if unsure.size == 0:
                break
            plan = dataclasses.replace(options.plan, precision=rung)
            options = dataclasses.replace(options, plan=plan, noise=self.noise.get(rung))
            # In batches of the same shape, so that nothing new is compiled for each number of images.
            again = self._run(options, np.asarray(batch)[np.resize(unsure, len(batch))])
            for old, new in zip(jax.tree.leaves(merged), jax.tree.leaves(again), strict=True):
                old[unsure] = np.asarray(new)[: unsure.size]
            if again.score.dtype != merged.score.dtype:  # float64, rounded to the dtype of the others
                rounding = np.spacing(np.abs(merged.score[unsure])) / 2
                merged.score_error[unsure] = np.hypot(merged.score_error[unsure], rounding)
        return merged
