"""How a Jacobian is to be computed: one frozen choice, checked once, that every entry shares."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass
from typing import Literal, get_args

from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.generic import columns_per_pass, rows_per_pass
from jepa_jax.layers.schedule import SCHEDULES, Schedule, ScheduleName, check_schedule
from jepa_jax.numerics.platforms import Platform, platform_of
from jepa_jax.numerics.precision import Precision, check_precision
from jepa_jax.numerics.products import Kernels, Products

Mode = Literal["auto", "forward", "reverse"]
Engine = Literal["auto", "rules", "generic"]

STEP_ELEMENTS = 2**22
"""Jacobian elements computed together when ``images_per_step`` is not given: enough small examples to fill
a processor, one large one."""


@dataclass(frozen=True)
class JacobianOptions:
    """How a Jacobian is computed; hashable, so that each choice is compiled once.

    Attributes:
        mode: ``forward`` pushes every input value forward (`jax.jacfwd`), ``reverse`` pulls every
            output value back in blocks. One costs about as much as the other, so ``auto``
            takes forward where the input is smaller than the output, and reverse for images: 384
            pullbacks instead of 150,528 pushforwards for a ViT-S at 224 pixels.
        engine: ``rules`` uses the exact pullbacks of our encoders' layers (`jepa_jax.layers`), ``generic`` JAX's own
            differentiation. ``auto`` takes the rules for an `Encoder`, unless a mode is asked for.
        precision: of the pullbacks' products, a level of `jepa_jax.numerics.precision.LEVELS`. Levels below
            ``float32`` need the rules.
        schedule: of the rules: ``looped`` goes through tokens and heads one at a time, which suits a processor's
            caches, ``batched`` takes all at once, which fills an accelerator; ``auto`` decides by the platform.
        block_size: rows (or columns) in one pass; more is faster until memory or caches are full.
            By default all with the rules, 32 without (in forward mode 64, and all of a small input).
        images_per_step: examples computed side by side; by default as many as fit a fixed number of
            Jacobian elements, so small problems are batched and large ones go one by one.
        kernels: ``auto`` lets a layer use a kernel written for the platform, where it has one; ``off`` does without.
        platform: of the devices that compute; by default of JAX's default device.
        khatri_rao: whether MLPs prepare the products of all weights that meet in a hidden unit, d^2 h numbers a block,
            which spare a GPU a third of an MLP's memory traffic. Scoring decides by what fits.
    """

    mode: Mode = "auto"
    engine: Engine = "auto"
    precision: Precision = "float32"
    schedule: Literal["auto"] | ScheduleName = "auto"
    block_size: int | None = None
    images_per_step: int | None = None
    kernels: Kernels = "auto"
    platform: Platform = dataclasses.field(default_factory=platform_of)
    khatri_rao: bool = False

    def __post_init__(self):
        check_precision(self.precision)
        if self.precision == "float16" and self.platform == "tpu":
            raise ArgumentError(
                "precision='float16': TPUs have no such numbers; use 'bfloat16', or 'bfloat16_3x' for a smaller error."
            )
        if self.mode not in get_args(Mode):
            raise ArgumentError(f"mode={self.mode!r} is unknown; use 'auto', 'forward' or 'reverse'.")
        if self.engine not in get_args(Engine):
            raise ArgumentError(f"engine={self.engine!r} is unknown; use one of {get_args(Engine)}.")
        if self.kernels not in get_args(Kernels):
            raise ArgumentError(f"kernels={self.kernels!r} is unknown; use one of {get_args(Kernels)}.")
        if self.schedule != "auto":
            check_schedule(self.schedule)
        for name in ("block_size", "images_per_step"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, numbers.Integral) and int(value) >= 1):
                raise ArgumentError(f"{name}={value!r} must be a whole number, at least 1.")

    @property
    def products(self) -> Products:
        """What takes the pullbacks' products."""
        return Products(self.precision, self.platform, self.kernels, self.khatri_rao)

    @property
    def chosen_schedule(self) -> Schedule:
        """The schedule that is asked for, or that suits the platform."""
        by_platform: ScheduleName = "looped" if self.platform == "cpu" else "batched"
        return SCHEDULES[by_platform if self.schedule == "auto" else self.schedule]

    def uses_rules(self, layered: bool) -> bool:
        """Whether layers' own pullbacks do the work, for a function that is (or is not) composed of such layers."""
        if self.engine == "rules" and not layered:
            raise ArgumentError("engine='rules' knows the layers of an Encoder alone; use 'generic' for a function.")
        if self.engine == "rules" and self.mode == "forward":
            raise ArgumentError("engine='rules' is a reverse mode for our encoders; use engine='generic'.")
        rules = self.engine == "rules" or (self.engine == "auto" and self.mode == "auto" and layered)
        if not rules and self.precision not in ("float32", "float64"):
            raise ArgumentError(
                f"precision={self.precision!r} needs the layer rules, which keep the forward pass exact; "
                "a function, or engine='generic', takes 'float32' or 'float64'."
            )
        return rules

    def forward_mode(self, inputs: int, outputs: int) -> bool:
        """Whether JAX's own differentiation goes forward."""
        return self.mode == "forward" or (self.mode == "auto" and inputs < outputs)

    def pass_size(self, inputs: int, outputs: int, layered: bool) -> int:
        """Rows (in forward mode columns) in one pass, for a function that is (or is not) composed of layers."""
        if self.uses_rules(layered):
            return min(self.block_size or outputs, outputs)
        if self.forward_mode(inputs, outputs):
            return columns_per_pass(inputs, self.block_size)
        return rows_per_pass(outputs, self.block_size)

    def step(self, inputs: int, outputs: int, batch: int) -> int:
        """Examples computed side by side, for Jacobians of ``outputs`` x ``inputs``."""
        return min(batch, self.images_per_step or default_images_per_step(inputs, outputs))


def default_images_per_step(inputs: int, outputs: int) -> int:
    """Examples computed side by side where nothing is said."""
    return max(1, STEP_ELEMENTS // max(1, inputs * outputs))
