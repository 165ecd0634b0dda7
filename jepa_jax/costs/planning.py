"""What scoring would take, worked out from shapes alone: no weights, no data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from jepa_jax.encoders import EncoderFunction, EncoderSpec
from jepa_jax.encoders.parameters import parameter_shapes
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.layers import Cost
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.numerics.precision import working_dtype
from jepa_jax.scoring.memory import MemoryEstimate, estimate_memory, plan_passes
from jepa_jax.scoring.options import ScoreOptions
from jepa_jax.scoring.programs import Program, ProgramFactory
from jepa_jax.spectrum.methods import method_name


@dataclass(frozen=True)
class ScoringPlan:
    """What the memory planner decides for batches of one shape.

    Attributes:
        spec: the encoder.
        layers: scored as well, by number from 1 on: memory and arithmetic are those of all of them.
        batch_size: images in a step.
        jacobian: how, with rows per pass and images side by side filled in where the layers' pullbacks do the work.
        rules: whether they do.
        budget: bytes that scoring may take.
        memory: estimated, by part; None without the layers' pullbacks, of whose memory nothing is known beforehand.
        method: the spectrum's algorithm, by name.
        multiplications: in the matrix products of one image's Jacobian, its forward pass included.
        naive_multiplications: those of one pullback per row.
        program: compiled, if that was asked for.
    """

    spec: EncoderSpec
    layers: tuple[int, ...]
    batch_size: int
    jacobian: JacobianOptions
    rules: bool
    budget: int
    memory: MemoryEstimate | None
    method: str
    multiplications: int
    naive_multiplications: int
    program: Program | None


def plan_scoring(
    spec: EncoderSpec,
    batch_size: int,
    options: ScoreOptions,
    *,
    compiled: bool = False,
    report: Callable[[str], None] = lambda message: None,
) -> ScoringPlan:
    """Plan the scoring of batches.

    Args:
        spec: the encoder.
        batch_size: images in a step.
        options: what the user wants; numbers that are given there are kept.
        compiled: whether to compile the step as well, which may find that it has to be smaller.
        report: is told in words if it has.

    Raises:
        ArgumentError: not even one row fits into the budget.
    """
    function = EncoderFunction(spec.vit, spec.gaussian_embedding).with_layers(options.layers)
    params = parameter_shapes(spec.vit, spec.kernel_dtype)
    shape = (batch_size, *spec.input_shape)
    options = options.resolved(function.layered)
    numerics = options.numerics
    factory = ProgramFactory(function, params, options.memory, report, options.platform)
    chosen = plan_passes(function, params, numerics.jacobian, shape, factory.budget)
    program = None
    if compiled:
        with float64_scope(options.precision == "float64"):
            program = factory.largest(numerics, jax.ShapeDtypeStruct(shape, np.float32))
        chosen = program.plan
    rules = chosen.uses_rules(function.layered)
    outputs = spec.embedding_size
    rows = chosen.pass_size(math.prod(shape[1:]), outputs, function.layered)
    cost = function.cost(shape[1:], rows, chosen.chosen_schedule, chosen.products)
    naive = cost.forward + _for_all_rows(cost.by_vjp, rows, outputs)
    return ScoringPlan(
        spec,
        function.layer_numbers,
        batch_size,
        chosen,
        rules,
        factory.budget,
        estimate_memory(function, chosen, shape[1:], params) if rules else None,
        method_name(options.method, np.dtype(working_dtype(options.level)), options.platform),
        multiplications(cost, rows, outputs) if rules else naive,
        naive,
        program,
    )


def multiplications(cost: Cost, rows: int, outputs: int) -> int:
    """Of one image's Jacobian by the layers' pullbacks, in passes of ``rows`` rows, and of its forward pass."""
    return cost.forward + math.ceil(outputs / rows) * cost.pullback


def _for_all_rows(count: int, rows: int, outputs: int) -> int:
    return count // rows * outputs
