"""What a Jacobian is taken of: a pure function with its parameters. The one door for encoders and for any function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, Self

import jax
import jax.numpy as jnp

from jepa_jax.encoders import Encoder
from jepa_jax.encoders.own import OwnEncoder
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.errors import ArgumentError, JepaJaxError
from jepa_jax.layers import Cost, Exit, Layer, Schedule
from jepa_jax.numerics.products import Products

BatchFunction = Callable[[jax.Array], jax.Array]
"""``[B, *input] -> [B, K]``, treating examples independently."""


AnyEncoder = Encoder | OwnEncoder | BatchFunction
"""What can be scored."""


class Differentiable(Protocol):
    """A pure function of parameters and a batch; hashable, so that it is compiled once."""

    @property
    def layered(self) -> bool:
        """Whether it is composed of layers that know their own pullbacks."""
        ...

    @property
    def vit(self) -> ViTSpec | None:
        """Its architecture; None where it is not `layered`."""
        ...

    @property
    def gaussian(self) -> bool:
        """Whether it was trained to embeddings distributed as N(0, I), so that ``gaussian_score`` applies."""
        ...

    @property
    def layer_numbers(self) -> tuple[int, ...]:
        """Its layers whose own embeddings are scored as well, from 1 on, ascending."""
        ...

    @property
    def exit_numbers(self) -> tuple[int, ...]:
        """Those of them that are not the function itself."""
        ...

    def with_layers(self, layers: Sequence[int]) -> Differentiable:
        """The same function, with layers to be scored as well."""
        ...

    def cut(self, params: Any, layer: int) -> tuple[Differentiable, Any]:
        """The function that ends with a layer, and its parameters."""
        ...

    def exits(self, params: Any, shape: tuple[int, ...], schedule: Schedule) -> tuple[Exit, ...]:
        """Those of `exit_numbers`, and its own at the end, for one example of a shape."""
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
    vit: ViTSpec | None = None
    gaussian = False
    layer_numbers: tuple[int, ...] = ()
    exit_numbers: tuple[int, ...] = ()

    def with_layers(self, layers: Sequence[int]) -> Self:
        """It has none that are known.

        Raises:
            ArgumentError: some are asked for.
        """
        if layers:
            raise ArgumentError(
                f"layers={list(layers)}: a function has no layers that are known; pass an Encoder, or a function that "
                "returns the layer's embedding."
            )
        return self

    def cut(self, params: Any, layer: int) -> NoReturn:
        """None of its layers is known."""
        raise NotImplementedError

    def exits(self, params: Any, shape: tuple[int, ...], schedule: Schedule) -> tuple[Exit, ...]:
        """None are known."""
        del params, shape, schedule
        return ()

    def layers(self, params: Any, shape: tuple[int, ...], schedule: Schedule) -> tuple[Layer, ...]:
        """None are known."""
        del params, shape, schedule
        return ()

    def null_directions(self, params: Any, embedding: jax.Array) -> jax.Array:
        """[K, m] of the Jacobian at an example with this embedding [K]: none are known."""
        del params
        return jnp.zeros((embedding.size, 0), embedding.dtype)

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


@dataclass(frozen=True)
class ParametricFunction(OpaqueFunction):
    """A user's function of parameters; see `OwnEncoder`."""

    fn: Callable[[Any, jax.Array], jax.Array]
    nulls: Callable[[Any, jax.Array], jax.Array] | None
    gaussian: bool

    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """[B, *input] -> [B, K]."""
        return self.fn(params, images)

    def null_directions(self, params: Any, embedding: jax.Array) -> jax.Array:
        """Those that the user states.

        Raises:
            ArgumentError: they have another shape.
        """
        if self.nulls is None:
            return super().null_directions(params, embedding)
        found = jnp.asarray(self.nulls(params, embedding))
        if found.ndim != 2 or found.shape[0] != embedding.size or found.shape[1] >= embedding.size:
            raise ArgumentError(
                f"null_directions returns shape {found.shape} of an embedding of K = {embedding.size} values; it must "
                "be [K, m], a direction in each of m < K columns."
            )
        return found.astype(embedding.dtype)


def pure_function(encoder: AnyEncoder) -> tuple[Differentiable, Any]:
    """What is scored, and its parameters.

    Raises:
        ArgumentError: it is neither an encoder nor a function.
    """
    if isinstance(encoder, Encoder):
        return encoder.function, encoder.params
    if isinstance(encoder, OwnEncoder):
        return ParametricFunction(encoder.fn, encoder.null_directions, encoder.gaussian), encoder.params
    if not callable(encoder):
        raise ArgumentError(f"encoder is a {type(encoder).__name__}; pass an Encoder or a function of a batch.")
    return PlainFunction(encoder), {}


def parameters_in(params: Any, dtype: Any) -> Any:
    """Parameters with their floating-point leaves in a dtype; counters and keys of random numbers stay."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, params)


def output_size(fn: BatchFunction, x: jax.Array) -> int:
    """K of a batch function, after checking that it is one."""
    if x.ndim < 2 or x.size == 0:
        raise ArgumentError(f"x has shape {x.shape}; it must be a batch [B, ...] that is not empty.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ArgumentError(f"x has dtype {x.dtype}; a Jacobian needs a floating-point input.")
    try:
        output = jax.eval_shape(fn, x)
    except JepaJaxError:
        raise
    except Exception as error:  # whatever a caller's function raises
        raise ArgumentError(
            f"fn fails on a batch of shape {x.shape}, whose first axis counts examples (x[None] is a batch of one "
            f"example x): {type(error).__name__}: {error}"
        ) from error
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != x.shape[0] or shape[1] == 0:
        raise ArgumentError(
            f"fn maps {x.shape} to {shape if shape is not None else type(output).__name__}; "
            f"it must return [{x.shape[0]}, K], one row per example."
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ArgumentError(f"fn returns dtype {output.dtype}; a Jacobian needs a floating-point output.")
    return shape[1]
