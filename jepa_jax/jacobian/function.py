"""What a Jacobian is taken of: a pure function with its parameters. The one door for encoders and for any function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.layers import Cost, Layer, Schedule
from jepa_jax.numerics.products import Products

BatchFunction = Callable[[jax.Array], jax.Array]
"""``[B, *input] -> [B, K]``, treating examples independently."""


class Differentiable(Protocol):
    """A pure function of parameters and a batch; hashable, so that it is compiled once."""

    @property
    def layered(self) -> bool:
        """Whether it is composed of layers that know their own pullbacks."""
        ...

    @property
    def averages_tokens(self) -> bool:
        """Whether its embedding is a mean over tokens."""
        ...

    @property
    def depth(self) -> int | None:
        """Number of transformer blocks, where it has any."""
        ...

    @property
    def gaussian(self) -> bool:
        """Whether it was trained to embeddings distributed as N(0, I), so that ``gaussian_score`` applies."""
        ...

    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """[B, *input] -> [B, K]."""
        ...

    def layers(self, params: Any, shape: tuple[int, ...], schedule: Schedule) -> tuple[Layer, ...]:
        """The layers around given parameters, for one example of a shape; none where it is not `layered`."""
        ...

    def cost(self, shape: tuple[int, ...], rows: int, schedule: Schedule, products: Products) -> Cost | None:
        """What one example of a shape costs with so many rows in a pass; None where nothing is known."""
        ...

    def check_batch(self, shape: tuple[int, ...]) -> None:
        """Refuse a batch of an unfit shape."""
        ...


class OpaqueFunction:
    """What is known of a function that is not composed of our layers: nothing. Its Jacobian has full rank."""

    layered = False
    averages_tokens = False
    depth: int | None = None
    gaussian = False

    def layers(self, params: Any, shape: tuple[int, ...], schedule: Schedule) -> tuple[Layer, ...]:
        """None are known."""
        del params, shape, schedule
        return ()

    def cost(self, shape: tuple[int, ...], rows: int, schedule: Schedule, products: Products) -> None:
        """Nothing is known."""
        del shape, rows, schedule, products

    def check_batch(self, shape: tuple[int, ...]) -> None:
        """A batch of something."""
        if 0 in shape:
            raise ArgumentError(f"batch has shape {shape}; it must be [B, ...], with one example at least.")


@dataclass(frozen=True)
class PlainFunction(OpaqueFunction):
    """A user's function without parameters."""

    fn: BatchFunction

    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """[B, *input] -> [B, K]."""
        del params
        return self.fn(images)


def pure_function(encoder: Encoder | BatchFunction) -> tuple[Differentiable, Any]:
    """What is scored, and its parameters.

    Raises:
        ArgumentError: it is neither an encoder nor a function.
    """
    if isinstance(encoder, Encoder):
        return encoder.function, encoder.params
    if not callable(encoder):
        raise ArgumentError(f"encoder is a {type(encoder).__name__}; pass an Encoder or a function of a batch.")
    return PlainFunction(encoder), {}


def output_size(fn: BatchFunction, x: jax.Array) -> int:
    """K of a batch function, after checking that it is one."""
    if x.ndim < 2 or x.size == 0:
        raise ArgumentError(f"x has shape {x.shape}; it must be a batch [B, ...] that is not empty.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ArgumentError(f"x has dtype {x.dtype}; a Jacobian needs a floating-point input.")
    output = jax.eval_shape(fn, x)
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != x.shape[0] or shape[1] == 0:
        raise ArgumentError(
            f"fn maps {x.shape} to {shape if shape is not None else type(output).__name__}; "
            f"it must return [{x.shape[0]}, K], one row per example."
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ArgumentError(f"fn returns dtype {output.dtype}; a Jacobian needs a floating-point output.")
    return shape[1]
