"""Compiled scoring functions: one per shape, as large as fits, and remembered."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jepa_jax.errors import OutOfMemoryError
from jepa_jax.jacobian.fold import Kernels
from jepa_jax.jacobian.function import Differentiable
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.compiler import compiler_options
from jepa_jax.numerics.platforms import Platform
from jepa_jax.scoring.compute import compute_scores, prepare_kernels
from jepa_jax.scoring.concurrency import Run, concurrency_of, concurrently, part_size
from jepa_jax.scoring.memory import default_budget, halved, plan_passes
from jepa_jax.scoring.options import Numerics
from jepa_jax.scoring.readings import ScoreResult

WORTH_IT = 0.9
"""Half a plan that takes more than this share of the memory is not worth its time: something else takes it."""


PREPARED_APART: frozenset[Platform] = frozenset(("gpu", "tpu"))
"""Where the kernels of the way back are arguments of the program. On a CPU it makes them in each call: handed in, one
ViT-S image took a tenth longer (measured), since XLA lays out as it likes what it makes itself."""


@dataclass(frozen=True)
class Program:
    """A compiled scoring function for batches of one shape.

    Attributes:
        run: ``((params, prepared kernels), batch) -> ScoreResult``.
        prepare: the kernels of the parameters; None where the program makes them itself.
        plan: how the Jacobian is computed, as planned.
        at_once: parts of a batch at the same time, see `jepa_jax.scoring.concurrency`.
        compile_seconds: what compiling took; little where the persistent cache knew it.
        peak_bytes: memory that it takes while it runs, parameters included, by XLA's account; 0 if it gives none.
        text: XLA's, of one part; to be looked at.
        counts: XLA's, of one step on one device, by name: ``flops``, ``bytes accessed``; not of kernels.
    """

    run: Run
    prepare: Callable[[Any], Kernels | None]
    plan: JacobianOptions
    at_once: int
    compile_seconds: float
    peak_bytes: int
    text: Callable[[], str | None]
    counts: Callable[[], Mapping[str, float] | None]


@dataclass(frozen=True)
class ProgramFactory:
    """Makes the programs of one function.

    Attributes:
        function: what is scored.
        params: its parameters, or their shapes (`jax.ShapeDtypeStruct`): enough to compile.
        memory: bytes that scoring may take, if the user says so.
        report: is told in words when a plan has to be changed.
        platform: of the devices that compute.
    """

    function: Differentiable
    params: Any
    memory: int | None
    report: Callable[[str], None]
    platform: Platform

    @functools.cached_property
    def budget(self) -> int:
        """Bytes that scoring may take, parameters included; what is free is looked up once for each decision."""
        if self.memory is not None:
            return self.memory
        resident = self.platform == "cpu"  # parameters have been taken from what is free already
        held = sum(leaf.nbytes for leaf in jax.tree.leaves(self.params) if resident and isinstance(leaf, jax.Array))
        return default_budget(self.platform) + held

    def largest(self, numerics: Numerics, batch: jax.ShapeDtypeStruct) -> Program:
        """The program of the largest plan that is expected to fit."""
        self.function.check_batch(batch.shape)
        jacobian = numerics.jacobian
        plan = plan_passes(self.function, self.params, jacobian, batch.shape, self.budget)
        at_once = 1
        of_images = len(batch.shape) == 4  # what is no batch of images must not be divided before it is refused
        if of_images and numerics.mesh is None and jacobian.images_per_step is None and plan.images_per_step == 1:
            at_once = concurrency_of(batch.shape[0], self.platform)
        return self._fitting(numerics, plan, at_once, batch)

    def smaller(self, numerics: Numerics, plan: JacobianOptions, at_once: int, batch: jax.ShapeDtypeStruct) -> Program:
        """The program after one that did not fit.

        Raises:
            OutOfMemoryError: there is no smaller one.
        """
        if at_once > 1:
            self.report(f"{at_once} images at a time do not fit into memory; going on with one at a time.")
            return self._fitting(numerics, plan, 1, batch)
        smaller = halved(plan, *self._sizes(numerics, plan, batch))
        if smaller is None:
            raise OutOfMemoryError(
                f"one row of one Jacobian for a batch of shape {batch.shape} does not fit into memory "
                f"({self.budget / 2**20:,.0f} MiB); use a smaller image_size or a device with more memory."
            )
        self._report_change(numerics, plan, smaller, batch)
        return self._fitting(numerics, smaller, 1, batch)

    def _report_change(
        self, numerics: Numerics, plan: JacobianOptions, smaller: JacobianOptions, batch: jax.ShapeDtypeStruct
    ) -> None:
        (images, rows), (left, fewer) = (self._sizes(numerics, p, batch) for p in (plan, smaller))
        self.report(
            f"{rows} rows of {images} image(s) at a time do not fit into memory; going on with {fewer} rows of {left} "
            "image(s)."
        )

    def _sizes(self, numerics: Numerics, plan: JacobianOptions, batch: jax.ShapeDtypeStruct) -> tuple[int, int]:
        """How many images side by side, and rows (in forward mode columns) in a pass, a plan comes to on a device."""
        inputs, outputs = math.prod(batch.shape[1:]), jax.eval_shape(self.function, self.params, batch).shape[1]
        images, layered = batch.shape[0], self.function.layered
        if numerics.mesh is not None:
            sharing = numerics.mesh.shape
            images, outputs = math.ceil(images / sharing["data"]), math.ceil(outputs / sharing["rows"])
            if sharing["rows"] > 1 and not plan.uses_rules(layered):
                plan = dataclasses.replace(plan, mode="reverse")  # there are no rows to share otherwise
        return plan.step(inputs, outputs, images), plan.pass_size(inputs, outputs, layered)

    def _fitting(
        self, numerics: Numerics, plan: JacobianOptions, at_once: int, batch: jax.ShapeDtypeStruct
    ) -> Program:
        """Compile, and compile smaller where that runs out of memory or over the budget."""
        try:
            program = self._compile(dataclasses.replace(numerics, jacobian=plan), at_once, batch)
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            return self.smaller(numerics, plan, at_once, batch)
        if program.peak_bytes <= self.budget:
            return program
        if self.memory is not None:
            return self.smaller(numerics, plan, program.at_once, batch)
        if numerics.jacobian.block_size is not None or numerics.jacobian.images_per_step is not None:
            return program  # the user's own numbers
        return self._nearer(numerics, program, batch)

    def _nearer(self, numerics: Numerics, program: Program, batch: jax.ShapeDtypeStruct) -> Program:
        """A program nearer to the default budget, as far as smaller ones take less: it is a wish, and no limit."""
        while program.peak_bytes > self.budget:
            plan = halved(program.plan, *self._sizes(numerics, program.plan, batch))
            if plan is None:
                break
            smaller = self._compile(dataclasses.replace(numerics, jacobian=plan), 1, batch)
            if smaller.peak_bytes > WORTH_IT * program.peak_bytes:
                break
            self._report_change(numerics, program.plan, plan, batch)
            program = smaller
        return program

    def _compile(self, numerics: Numerics, at_once: int, batch: jax.ShapeDtypeStruct) -> Program:
        part = part_size(batch.shape[0], at_once)
        begun = time.perf_counter()
        images = jax.ShapeDtypeStruct((part, *batch.shape[1:]), batch.dtype)
        kernels = functools.partial(prepare_kernels, self.function, unplanned(numerics.jacobian), images.shape[1:])
        apart = self.platform in PREPARED_APART
        prepared = jax.eval_shape(kernels, self.params) if apart else None
        lowered = compute_scores.lower(self.function, numerics, self.params, images, prepared)
        compiled = lowered.compile(compiler_options(self.platform))
        seconds = time.perf_counter() - begun
        (_, sharding, of_kernels), _ = compiled.input_shardings
        memory = compiled.memory_analysis()
        shared, each = 0, 0
        if memory is not None:
            each = memory.temp_size_in_bytes + memory.output_size_in_bytes + images.size * images.dtype.itemsize
            shared = max(0, memory.argument_size_in_bytes - images.size * images.dtype.itemsize)
            at_once = min(at_once, max(1, (self.budget - shared) // max(1, each)))

        def run_part(weights: tuple[Any, Kernels | None], batch: jax.Array) -> ScoreResult:
            params, prepared = weights
            # The batch may lie anywhere, on a mesh of the user's own for instance.
            return compiled(params, jax.device_put(batch, sharding), prepared)

        def prepare(params: Any) -> Kernels | None:
            if not apart:
                return None
            return jax.device_put(kernels(params), of_kernels)  # a mesh of the user's may be set meanwhile

        run: Run = run_part
        if part < batch.shape[0]:
            run = concurrently(run_part, part, at_once)
        peak = shared + at_once * each
        return Program(
            run, prepare, numerics.jacobian, at_once, seconds, peak, compiled.as_text, compiled.cost_analysis
        )


def unplanned(options: JacobianOptions) -> JacobianOptions:
    """Options without what a plan of memory adds to them, on which no kernel depends."""
    return dataclasses.replace(options, block_size=None, images_per_step=None)


@contextlib.contextmanager
def placing(what: str) -> Iterator[None]:
    """Around what only moves data to a device: where that alone does not fit, nothing smaller will."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemoryError(f"{what} alone does not fit into the device's memory.") from error


def out_of_memory(error: Exception) -> bool:
    """Whether XLA's error says that an allocation failed."""
    return "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)
