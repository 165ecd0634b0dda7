"""What is scored, and how: a pure function with its parameters, and one frozen set of choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.jacobian import require_sound_backend
from jepa_jax.jacobian.jacobian import BatchFunction
from jepa_jax.jacobian.plan import Engine, JacobianPlan, Mode
from jepa_jax.jacobian.precision import Precision
from jepa_jax.numerics.platforms import Platform, platform_of
from jepa_jax.scoring.meshes import usable_mesh
from jepa_jax.scoring.noise import Noise, noise_by_rung
from jepa_jax.spectrum import Method
from jepa_jax.spectrum.scores import DEFAULT_EPS


@dataclass(frozen=True)
class Options:
    """How scores are computed; hashable, so that each choice is compiled once.

    Attributes:
        plan: how the Jacobian is computed.
        platform: of the devices that compute, on which choices depend that are left open.
        method: the spectrum's algorithm.
        eps: clip of singular values before the log.
        spectrum: whether singular values are wanted, or the score alone.
        mesh: devices, with axes ``data`` and ``rows`` of any kind; None for the default device.
        noise: of the Jacobian at the plan's precision, relative, for encoders without null directions.
        gaussian: whether the encoder was trained to Gaussian embeddings.
    """

    plan: JacobianPlan
    platform: Platform
    method: Method = "auto"
    eps: float = DEFAULT_EPS
    spectrum: bool = True
    mesh: Mesh | None = None
    noise: float | None = None
    gaussian: bool = False

    def __post_init__(self):
        if self.mesh is not None:
            object.__setattr__(self, "mesh", usable_mesh(self.mesh))


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
    mesh: Mesh | None = None,
    noise: Noise | None = None,
    **others: Any,
) -> Options:
    """The keyword arguments of `jepa_jax.score`, checked and joined."""
    plan = JacobianPlan(mode, engine, precision, block_size, images_per_step)
    ours = isinstance(encoder, Encoder)
    plan.uses_rules(ours)
    of_rung = noise_by_rung(noise, precision, climbs=False).get(precision)
    platform = platform_of(None if mesh is None else mesh.devices.flat)
    gaussian = ours and encoder.spec.gaussian_embedding
    return Options(plan, platform, mesh=mesh, noise=of_rung, **others, gaussian=gaussian)
