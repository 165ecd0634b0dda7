"""What scoring would take, worked out from shapes alone: no weights, no data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from jepa_jax.encoders import EncoderFunction, EncoderSpec
from jepa_jax.encoders.encoder import parameter_shapes
from jepa_jax.jacobian.counting import naive_multiplications, planned_multiplications
from jepa_jax.jacobian.plan import JacobianPlan
from jepa_jax.jacobian.precision import working_dtype
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.scoring.memory import MemoryEstimate, estimate_memory, fit_plan
from jepa_jax.scoring.meshes import local_mesh
from jepa_jax.scoring.options import Options
from jepa_jax.scoring.programs import Program, ProgramFactory
from jepa_jax.spectrum import Method
from jepa_jax.spectrum.methods import method_name


@dataclass(frozen=True)
class ScoringPlan:
    """What the memory planner decides for batches of one shape.

    Attributes:
        spec: the encoder.
        batch_size: images in a step.
        jacobian: the plan, with rows per pass and images side by side filled in where the layer rules do the work.
        rules: whether they do.
        budget: bytes that scoring may take.
        memory: estimated, by part; None without the layer rules, of whose memory nothing is known beforehand.
        method: the spectrum's algorithm, by name.
        multiplications: in the matrix products of one image's Jacobian.
        naive_multiplications: those of one pullback per row.
        program: compiled, if that was asked for.
    """

    spec: EncoderSpec
    batch_size: int
    jacobian: JacobianPlan
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
    jacobian: JacobianPlan,
    *,
    method: Method = "auto",
    spectrum: bool = True,
    memory: int | None = None,
    compiled: bool = False,
    report: Callable[[str], None] = lambda message: None,
) -> ScoringPlan:
    """Plan the scoring of batches on this process's devices.

    Args:
        spec: the encoder.
        batch_size: images in a step.
        jacobian: what the user wants; numbers that are given there are kept.
        method: as for `jepa_jax.score`, as for the next two.
        spectrum: whether singular values are wanted.
        memory: bytes.
        compiled: whether to compile the step as well, which may find that it has to be smaller.
        report: is told in words if it has.

    Raises:
        ArgumentError: not even one row fits into the budget.
    """
    function, params = EncoderFunction(spec.vit), parameter_shapes(spec.vit, spec.kernel_dtype)
    shape = (batch_size, spec.image_size, spec.image_size, 3)
    factory = ProgramFactory(function, params, memory, report)
    chosen = fit_plan(function, params, jacobian, shape, factory.budget)
    rules = chosen.uses_rules(ours=True)
    mesh = local_mesh()
    platform = platform_of(None if mesh is None else mesh.devices.flat)
    program = None
    with float64_scope(jacobian.precision == "float64"):
        dtype = np.dtype(working_dtype(jacobian.precision))
        if compiled:
            options = Options(jacobian, platform, method, spectrum=spectrum, mesh=mesh)
            program = factory.largest(options, jax.ShapeDtypeStruct(shape, np.float32))
            chosen = program.plan
        widened = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), params)
        image = jax.ShapeDtypeStruct(shape[1:], dtype)
        return ScoringPlan(
            spec,
            batch_size,
            chosen,
            rules,
            factory.budget,
            estimate_memory(spec.vit, chosen, shape[1:], params) if rules else None,
            method_name(method, dtype, platform),
            planned_multiplications(function, widened, image, chosen),
            naive_multiplications(function, widened, image),
            program,
        )
