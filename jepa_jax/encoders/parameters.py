"""An architecture's parameters: nested dictionaries of arrays, and the Flax module around them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.encoders.specs import KernelDtype, ViTSpec
from jepa_jax.encoders.vit import ViT
from jepa_jax.errors import CheckpointError

Params = dict[Any, Any]
"""Nested parameters: names, and block numbers as ints, to arrays."""


def build_module(spec: ViTSpec, params: Params) -> ViT:
    """The ViT of a spec around given parameters, without initialising any.

    This is where parameters enter a computation, and where kernels that are stored in bfloat16 are widened to
    float32: bfloat16 saves space, and never narrows a product.
    """
    graph, state = _abstract(spec)
    state = jax.tree.map(lambda leaf: leaf, state)  # a copy: the cached one stays abstract
    nnx.replace_by_pure_dict(state, jax.tree.map(_widened, params))
    return nnx.merge(graph, state)


def _widened(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf


def initialize_params(spec: ViTSpec, seed: int) -> Params:
    """Random parameters, as before training."""
    return nnx.to_pure_dict(nnx.state(ViT(spec, rngs=nnx.Rngs(seed))))


def parameter_shapes(spec: ViTSpec, kernel_dtype: KernelDtype = "float32") -> Params:
    """The parameters' shapes and stored dtypes (`jax.ShapeDtypeStruct`), without allocating any."""

    def shape(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, stored_dtype(path[-1].key, kernel_dtype))

    return jax.tree.map_with_path(shape, nnx.to_pure_dict(_abstract(spec)[1]))


def stored_dtype(name: str, kernel_dtype: KernelDtype) -> jnp.dtype:
    """What a parameter of this (dotted) name is stored in: only kernels ever leave float32.

    Norms, biases, tokens, positions and layer scales are a thousandth of the bytes, and their rounding would
    touch every token.
    """
    return jnp.dtype(kernel_dtype if name.split(".")[-1] == "kernel" else "float32")


def check_params(spec: ViTSpec, params: Params) -> None:
    """Compare every path and shape with the architecture, and accept floats alone; nnx itself would take anything."""
    wanted = dict(named_arrays(parameter_shapes(spec)))
    found = dict(named_arrays(params))
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or extra:
        raise CheckpointError(
            f"the parameters do not fit the architecture: missing {missing[:5]}, unknown {extra[:5]}."
        )
    for name, leaf in wanted.items():
        if tuple(found[name].shape) != tuple(leaf.shape):
            raise CheckpointError(f"parameter {name} has shape {found[name].shape}, expected {leaf.shape}.")
        if not jnp.issubdtype(found[name].dtype, jnp.floating):
            raise CheckpointError(f"parameter {name} has dtype {found[name].dtype}, expected a float.")


def named_arrays(params: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted name, such as ``blocks.0.norm1.scale``."""
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from named_arrays(value, f"{name}.")
        else:
            yield name, value


def same_arrays(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether these are the very same arrays: in a dictionary of parameters others may have taken their places."""
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


@functools.lru_cache(maxsize=64)
def _abstract(spec: ViTSpec) -> tuple[Any, Any]:
    rngs: Any = _OneKey(jax.random.key(0))
    return nnx.split(nnx.eval_shape(lambda: ViT(spec, rngs=rngs)))


class _OneKey(NamedTuple):
    """In place of `nnx.Rngs` where nothing is drawn: its streams count their keys, which takes most of the time."""

    key: jax.Array

    def params(self) -> jax.Array:
        """The key."""
        return self.key
