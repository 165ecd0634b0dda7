"""How scores are computed: what a user may choose, checked once, and what of it a compiled program depends on."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from jax.sharding import Mesh

from jepa_jax.encoders.layerwise import checked_layers
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian.options import Engine, JacobianOptions, Mode
from jepa_jax.layers.schedule import ScheduleName
from jepa_jax.numerics.platforms import Platform, platform_of
from jepa_jax.numerics.precision import FASTEST, AskedPrecision, Precision
from jepa_jax.numerics.products import Kernels
from jepa_jax.scoring.meshes import usable_mesh
from jepa_jax.scoring.noise import Noise, noise_by_level
from jepa_jax.spectrum.methods import Method, check_method
from jepa_jax.spectrum.scores import DEFAULT_EPS

AUTO_TOLERANCE = 0.05
"""Nats that ``precision="auto"`` tolerates where nothing is said: scores of photographs differ by hundreds."""


class ScoreKeywords(TypedDict, total=False):
    """The fields of `ScoreOptions`, as keyword arguments of `jepa_jax.score` and its kin."""

    precision: AskedPrecision
    mode: Mode
    engine: Engine
    schedule: Literal["auto"] | ScheduleName
    method: Method
    eps: float
    spectrum: bool
    block_size: int | None
    images_per_step: int | None
    kernels: Kernels
    mesh: Mesh | None
    noise: Noise | None
    tolerance: float | None
    memory: int | None
    layers: Sequence[int]


@dataclass(frozen=True)
class ScoreOptions:
    """How scores are computed.

    Attributes:
        precision: of the Jacobian's products, a level of `jepa_jax.numerics.precision`; the forward pass is in float32
            at every level below ``float64``. ``float32`` means full float32 products on every backend, never TF32 or
            bfloat16. ``float64`` is slow, for studies. ``auto`` begins at the fastest level of an accelerator, float16
            on GPUs and bfloat16 on TPUs, and scores again, image by image, what is off by more than ``tolerance``; on
            CPUs, and for functions that are no `Encoder`, it is float32.
        mode: of JAX's own differentiation, ``forward`` (a pass per input) or ``reverse`` (a pass per output); ``auto``
            takes the smaller number.
        engine: ``rules``, the exact rules of an `Encoder`'s layers; ``generic``, JAX's own differentiation, for any
            function; ``auto`` takes the rules where there are any.
        schedule: of the rules, ``looped`` (a token and a head at a time: CPUs) or ``batched`` (all in one product:
            accelerators).
        method: the spectrum's algorithm, see `jepa_jax.singular_values`.
        eps: clip of singular values before the log.
        spectrum: False computes ``score`` alone, without an eigensolver.
        block_size: rows of a Jacobian in one pass (columns in forward mode); by default as many as memory holds.
        images_per_step: images side by side in one program; by default as many as memory holds.
        kernels: ``auto`` uses programs written for a platform, where a layer has one; ``off`` leaves all to XLA.
        mesh: devices to share the work, with axes ``data`` (images) and ``rows`` (rows of each image's
            Jacobian: for latency, or where one device's memory is too small), as
            ``jax.make_mesh((4, 2), ("data", "rows"))`` makes it.
        noise: relative noise of the Jacobian at this precision, as `measure_noise` measures it, for an encoder
            without null directions; by default what is typical of ViTs. With ``tolerance``, of every level
            that may be reached: ``{"tensorfloat32": ..., "bfloat16_3x": ..., "float32": ...}``.
        tolerance: nats. Images whose ``score_error`` is larger are scored again at a finer precision; by default none
            are, or with ``precision="auto"`` on an accelerator those above 0.05.
        memory: bytes that scoring may take; by default most of an accelerator, half of a computer's free memory.
        layers: blocks of an `Encoder` whose own embeddings are scored as well, such as ``[-4, -1]``: 1 is the first
            block, -1 the last. Of a block that is the encoder's pooling of the block's tokens in the encoder's final
            LayerNorm, without a projection; see `jepa_jax.encoders.layerwise`. They are in ``ScoreResult.layers``.

    Raises:
        ArgumentError: a value is invalid.
    """

    precision: AskedPrecision = "auto"
    mode: Mode = "auto"
    engine: Engine = "auto"
    schedule: Literal["auto"] | ScheduleName = "auto"
    method: Method = "auto"
    eps: float = DEFAULT_EPS
    spectrum: bool = True
    block_size: int | None = None
    images_per_step: int | None = None
    kernels: Kernels = "auto"
    mesh: Mesh | None = None
    noise: Noise | None = None
    tolerance: float | None = None
    memory: int | None = None
    layers: Sequence[int] = ()

    def __post_init__(self):
        object.__setattr__(self, "layers", checked_layers(self.layers))
        for name in ("memory", "tolerance", "eps"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, numbers.Real) and 0 < float(value) < math.inf):
                raise ArgumentError(f"{name}={value!r} must be positive.")
        if self.mesh is not None:
            object.__setattr__(self, "mesh", usable_mesh(self.mesh))
        check_method(self.method)
        # Checked for any platform: which one it is must not be asked before a process has joined its peers.
        level = "float32" if self.precision == "auto" else self.precision
        _ = self._jacobian(level, "cpu"), noise_by_level(self.noise, level, "cpu", climbs=False)

    @functools.cached_property
    def platform(self) -> Platform:
        """Of the devices that compute."""
        return platform_of(None if self.mesh is None else self.mesh.devices.flat)

    def resolved(self, layered: bool) -> ScoreOptions:
        """These options with a level in the place of ``precision="auto"``, by the devices that compute.

        Args:
            layered: whether they are for a function that is composed of layers, such as an `Encoder`.
        """
        if self.precision != "auto":
            return self
        rules = self._jacobian("float32", self.platform).uses_rules(layered)
        level = FASTEST[self.platform] if rules else "float32"
        tolerance = AUTO_TOLERANCE if self.tolerance is None and level != "float32" else self.tolerance
        return dataclasses.replace(self, precision=level, tolerance=tolerance)

    @property
    def level(self) -> Precision:
        """The precision of options that are `resolved`."""
        assert self.precision != "auto", "resolve the options first"
        return self.precision

    @functools.cached_property
    def numerics(self) -> Numerics:
        """What a compiled program depends on, at the precision that is asked for, of options that are `resolved`."""
        noise = noise_by_level(self.noise, self.level, self.platform, climbs=False).get(self.level)
        jacobian = self._jacobian(self.level, self.platform)
        return Numerics(jacobian, self.method, self.eps, self.spectrum, self.mesh, noise)

    def _jacobian(self, level: Precision, platform: Platform) -> JacobianOptions:
        return JacobianOptions(
            self.mode,
            self.engine,
            level,
            self.schedule,
            self.block_size,
            self.images_per_step,
            self.kernels,
            platform,
        )

    @functools.cached_property
    def noise_by_level(self) -> dict[Precision, float]:
        """Of every level that may be reached, which depends on the platform; empty where nothing is said."""
        return noise_by_level(self.noise, self.level, self.platform, climbs=self.tolerance is not None)


@dataclass(frozen=True)
class Numerics:
    """What a compiled program depends on; hashable, so that each choice is compiled once.

    Attributes:
        jacobian: how the Jacobian is computed.
        method: the spectrum's algorithm.
        eps: clip of singular values before the log.
        spectrum: whether singular values are wanted, or the score alone.
        mesh: devices, with axes ``data`` and ``rows``; None for the default device.
        noise: of the Jacobian at this precision, relative, for functions without null directions.
    """

    jacobian: JacobianOptions
    method: Method = "auto"
    eps: float = DEFAULT_EPS
    spectrum: bool = True
    mesh: Mesh | None = None
    noise: float | None = None

    @property
    def precision(self) -> Precision:
        """Of the Jacobian's products."""
        return self.jacobian.precision

    @property
    def platform(self) -> Platform:
        """Of the devices that compute."""
        return self.jacobian.platform
