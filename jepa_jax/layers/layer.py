"""What every layer can do, and what it costs.

A layer is stated once, in one file: forward, what the way back needs of the forward pass, the way back for many rows
of a Jacobian at once, and the cost of both. An encoder's Jacobian is a fold of these over its layers
(`jepa_jax.jacobian.fold`). Cotangents are arrays [tokens, rows, width]: a kernel is then applied as one product over
rows, and heads are cut from the last axis. Each pullback is exact; tests hold every layer to `jax.vjp`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.schedule import Schedule
from jepa_jax.numerics.products import Products

INITIAL = jax.nn.initializers.truncated_normal(stddev=0.02)
"""How kernels, tokens and positions begin."""


def linear(inputs: int, outputs: int, rngs: nnx.Rngs, use_bias: bool = True) -> nnx.Linear:
    """A linear map, applied from the right."""
    return nnx.Linear(inputs, outputs, use_bias=use_bias, kernel_init=INITIAL, rngs=rngs)


@dataclass(frozen=True)
class Sizes:
    """What a layer's cost depends on beside its own dimensions.

    Attributes:
        grid: patches along each axis: rows and columns; of clips times before these.
        tokens: N.
        active: how many leading tokens of the last block's output have cotangents that are not zero.
        rows: of the Jacobian, in one pass.
        schedule: how tokens and heads are gone through.
        products: takes the products, and decides in how many bytes a number is stored.
    """

    grid: tuple[int, ...]
    tokens: int
    active: int
    rows: int
    schedule: Schedule
    products: Products

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the forward pass, and of the Jacobian."""
        return self.products.itemsize

    @property
    def stored(self) -> int:
        """Bytes of a number of the way back, as it is stored."""
        return self.products.stored_itemsize

    @property
    def patches(self) -> int:
        """P."""
        return math.prod(self.grid)


@dataclass(frozen=True)
class Cost:
    """Multiplications in matrix products, and bytes, for one image; costs of layers add up.

    Attributes:
        forward: multiplications of the forward pass.
        pullback: of the way back of all rows in a pass.
        by_vjp: of the same by one `jax.vjp` for each row.
        kernels: bytes of what is prepared of the parameters.
        residuals: bytes of what is kept of the forward pass.
        workspace: bytes that the way back takes while it runs. One layer runs at a time: of several, the largest.
        jacobian: bytes of the rows that come out at the input.
    """

    forward: int = 0
    pullback: int = 0
    by_vjp: int = 0
    kernels: int = 0
    residuals: int = 0
    workspace: int = 0
    jacobian: int = 0

    def __add__(self, other: Cost) -> Cost:
        summed = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)}
        return Cost(**summed | {"workspace": max(self.workspace, other.workspace)})

    def times(self, count: int) -> Cost:
        """Of so many equal layers, one after the other."""
        summed = {f.name: count * getattr(self, f.name) for f in dataclasses.fields(self)}
        return Cost(**summed | {"workspace": self.workspace})


class NullDirections(NamedTuple):
    """Directions n with J^T n = 0 of every token after a layer, independent but not orthogonal.

    Attributes:
        shared: the same for all tokens, so that a mean over them keeps them, [d, m].
        own: each token's own, [N, d, m'].
    """

    shared: jax.Array
    own: jax.Array


def no_null_directions(output: jax.Array) -> NullDirections:
    """What is known of tokens [M, e] before anything is."""
    tokens, width = output.shape
    return NullDirections(jnp.zeros((width, 0), output.dtype), jnp.zeros((tokens, width, 0), output.dtype))


class Layer:
    """What an encoder is composed of. N tokens go in, M come out; d and e are their widths."""

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """The plain layer, [B, N, d] -> [B, M, e]: the reference."""
        raise NotImplementedError

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, Any]:
        """Of one image: [N, d] -> [M, e] and the residuals, a tree of arrays that `pullback` needs."""
        raise NotImplementedError

    heavy = False
    """Whether most of the work is here: cotangents enter it, and go on from it, as `Products.stored` says."""

    def prepare(self, products: Products) -> Any:
        """The kernels of the way back: what it needs of the parameters alone, worked out once for all images.

        Args:
            products: takes the products with rows in them.
        """
        del products
        return None

    def pullback(
        self, kernels: Any, residuals: Any, cotangent: jax.Array, products: Products, schedule: Schedule
    ) -> jax.Array:
        """Pull rows back, [A, R, e] -> [N, R, d].

        Args:
            kernels: what `prepare` returned.
            residuals: what `linearize` returned.
            cotangent: of the first A of M output tokens; that of the others is zero.
            products: takes the products with rows in them.
            schedule: how tokens and heads are gone through.
        """
        raise NotImplementedError

    def null_directions(self, before: NullDirections, output: jax.Array) -> NullDirections:
        """Null directions of the output [M, e], given those of the input. By default none are known."""
        del before
        return no_null_directions(output)

    def cost(self, sizes: Sizes) -> Cost:
        """Multiplications and bytes for one image."""
        raise NotImplementedError


class TokenLayer(Layer):
    """A layer that treats every token alone: it states the pullback of any number of tokens, leading axes `...`."""

    def pullback_tokens(self, kernels: Any, residuals: Any, cotangent: jax.Array, products: Products) -> jax.Array:
        """[..., R, e] -> [..., R, d], with residuals [..., *]."""
        raise NotImplementedError

    def pullback(
        self, kernels: Any, residuals: Any, cotangent: jax.Array, products: Products, schedule: Schedule
    ) -> jax.Array:
        """See `Layer.pullback`."""

        def rule(cotangent: jax.Array, residuals: Any) -> jax.Array:
            return self.pullback_tokens(kernels, residuals, cotangent, products)

        return schedule.over_tokens(rule, cotangent, first(residuals, cotangent.shape[0]))


class EntryLayer(TokenLayer):
    """The first layer, through which an input enters."""

    def prepare_compact(self, products: Products) -> Any:
        """`prepare`, up to an isometry of the input: enough where singular values alone are wanted."""
        raise NotImplementedError

    def to_input(self, transpose: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """From what `pullback_transpose` returns, not compact, to rows of the Jacobian in the input's shape."""
        raise NotImplementedError

    def pullback_transpose(
        self, kernels: Any, residuals: Any, cotangent: jax.Array, products: Products, schedule: Schedule
    ) -> jax.Array:
        """`pullback` with rows last, [P, m, R]: each token is turned in its own product, not all of them after it."""

        def rule(cotangent: jax.Array, residuals: Any) -> jax.Array:
            return jnp.swapaxes(self.pullback_tokens(kernels, residuals, cotangent, products), -1, -2)

        return schedule.over_tokens(rule, cotangent, residuals)


def kernel_pair(
    products: Products, outward: jax.Array, inward: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Two kernels of the way back as they are stored, and by what a product of both is to be multiplied."""
    (outward, of_outward), (inward, of_inward) = products.kernel(outward), products.kernel(inward)
    return outward, inward, None if of_outward is None or of_inward is None else of_outward * of_inward


def first(tree: Any, count: int) -> Any:
    """The first tokens' share of residuals."""
    return jax.tree.map(lambda leaf: leaf[:count], tree)


def activation_derivative(activate: Callable[[jax.Array], jax.Array], hidden: jax.Array, parts: int = 1) -> jax.Array:
    """Derivative of each hidden unit's output by each of its inputs.

    Args:
        activate: from ``parts`` runs of h values in the last axis to one, elementwise.
        hidden: [..., parts * h].
        parts: 1, or 2 for gated units.

    Returns:
        [..., parts * h].
    """
    width = hidden.shape[-1] // parts

    def by(part: int) -> jax.Array:
        tangent = jnp.zeros_like(hidden).at[..., part * width : (part + 1) * width].set(1.0)
        return jax.jvp(activate, (hidden,), (tangent,))[1]

    return jnp.concatenate([by(part) for part in range(parts)], axis=-1)
