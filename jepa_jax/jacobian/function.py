"""What a Jacobian is taken of: a pure function with its parameters. The one door for encoders and for any function."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, NoReturn, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jepa_jax.encoders import Encoder
from jepa_jax.encoders.own import OwnEncoder
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.errors import ArgumentError, JepaJaxError
from jepa_jax.jacobian.arithmetic import coarsest_dtype
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

    def coarsest_dtype(self, params: Any, batch: jax.Array | jax.ShapeDtypeStruct) -> np.dtype:
        """Of the numbers in which it computes what hangs on a batch, those with the fewest digits."""
        ...


class OpaqueFunction(ABC):
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

    def coarsest_dtype(self, params: Any, batch: jax.Array | jax.ShapeDtypeStruct) -> np.dtype:
        """Found by a look through it."""
        return coarsest_dtype(functools.partial(self, params), batch)

    @abstractmethod
    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """[B, *input] -> [B, K]."""


@dataclass(frozen=True)
class Same:
    """A user's callable, equal to itself alone: one that calls itself equal to another may hold other weights.

    A bound method is a new object each time that it is looked up: of the same object's, all are the same.
    """

    call: Callable[..., Any]

    @property
    def _identity(self) -> tuple[int, ...]:
        call = self.call
        return (id(call.__self__), id(call.__func__)) if isinstance(call, MethodType) else (id(call),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


@dataclass(frozen=True)
class PlainFunction(OpaqueFunction):
    """A user's function without parameters."""

    fn: Same

    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """[B, *input] -> [B, K]."""
        del params
        return self.fn.call(images)


@dataclass(frozen=True)
class ModuleFunction(OpaqueFunction):
    """A user's Flax nnx module. Its weights, which training changes where they are, are parameters.

    Attributes:
        graph: of the module; equal ones are equal functions.
        method: of its class, what is called.
    """

    graph: nnx.GraphDef[Any]
    method: Callable[[Any, jax.Array], jax.Array]

    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """[B, *input] -> [B, K]."""
        module = nnx.merge(self.graph, jax.tree.map(lambda leaf: leaf, params))  # it writes into what it is given
        embedding = self.method(module, images)
        now = dict(jax.tree.leaves_with_path(nnx.state(module)))
        changed = [path for path, leaf in jax.tree.leaves_with_path(params) if now.get(path) is not leaf]
        if changed:
            names = ", ".join(jax.tree_util.keystr(path) for path in changed[:3])
            raise ArgumentError(
                f"encoder is a module that changes when it is called ({names}): it draws random numbers or takes the "
                "statistics of its batch, as in training; call its eval() first."
            )
        return embedding


@dataclass(frozen=True)
class ParametricFunction(OpaqueFunction):
    """A user's function of parameters; see `OwnEncoder`."""

    fn: Same
    nulls: Same | None
    gaussian: bool

    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """[B, *input] -> [B, K]."""
        return self.fn.call(params, images)

    def null_directions(self, params: Any, embedding: jax.Array) -> jax.Array:
        """Those that the user states.

        Raises:
            ArgumentError: they have another shape.
        """
        if self.nulls is None:
            return super().null_directions(params, embedding)
        found = jnp.asarray(self.nulls.call(params, embedding))
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
        nulls = encoder.null_directions
        of_nulls = None if nulls is None else Same(nulls)
        return ParametricFunction(Same(encoder.fn), of_nulls, encoder.gaussian), encoder.params
    if not callable(encoder):
        raise ArgumentError(f"encoder is a {type(encoder).__name__}; pass an Encoder or a function of a batch.")
    bound: Any = encoder if isinstance(encoder, MethodType) else encoder.__call__
    module, method = getattr(bound, "__self__", None), getattr(bound, "__func__", None)
    if isinstance(module, nnx.Module) and method is not None:
        graph, state = nnx.split(module)
        return ModuleFunction(graph, method), state
    return PlainFunction(Same(encoder)), {}


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
