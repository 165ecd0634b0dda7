"""An encoder ready to use: spec, parameters, preprocessing, and the pure function behind it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from jepa_jax.encoders import null_directions
from jepa_jax.encoders.specs import EncoderSpec, KernelDtype, ViTSpec
from jepa_jax.encoders.vit import ViT
from jepa_jax.errors import CheckpointError
from jepa_jax.images.preprocessing import preprocess

Params = dict[Any, Any]
"""Nested parameters: names, and block numbers as ints, to arrays."""


@dataclass(frozen=True)
class EncoderFunction:
    """The pure function (params, images) -> embeddings of an architecture; equal specs are equal functions."""

    vit: ViTSpec

    def __call__(self, params: Params, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, K]."""
        return build_module(self.vit, params)(images)

    def embed_with_nulls(self, params: Params, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Embedding [K] of one image [H, W, 3], and the structural null directions [K, m] of the Jacobian there."""
        stages = build_module(self.vit, params).intermediates(image[None])
        embedding = stages["embedding"][0]
        return embedding, null_directions.null_directions(self.vit, params, stages["pooled"][0], embedding)


class Encoder:
    """A pretrained encoder.

    Attributes:
        spec: what it is.
        params: its parameters, nested dicts of arrays.
        function: its pure function, for use in a program of one's own.
    """

    def __init__(self, spec: EncoderSpec, params: Params):
        check_params(spec.vit, params)
        scale = np.asarray(params["norm"]["scale"])
        if not np.all(np.isfinite(scale) & (scale != 0)):
            raise CheckpointError(
                f"norm.scale of {spec.name!r} has {int(np.sum(~np.isfinite(scale) | (scale == 0)))} values that "
                "are zero or not finite: its embedding has dead dimensions, and its score is not defined."
            )
        self.spec = spec
        self.params = params
        self.function = EncoderFunction(spec.vit)

    def __repr__(self) -> str:
        return f"Encoder({self.spec.name!r}, image_size={self.spec.image_size}, K={self.spec.embedding_size})"

    def __call__(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Embed preprocessed images [B, H, W, 3] as [B, K], with exact float32 products on every backend."""
        with jax.default_matmul_precision("highest"):
            return _embed(self.function, self.params, images)

    def preprocess(self, images: Sequence[Image.Image | np.ndarray]) -> np.ndarray:
        """Pictures to this encoder's input, float32 [B, H, W, 3], by its own recipe (see `preprocessing`)."""
        return preprocess(images, self.spec.preprocess)

    @property
    def null_direction_count(self) -> int:
        """Number m of structural null directions; a score sums K - m singular values."""
        return null_directions.null_direction_count(self.spec.vit)

    def module(self) -> ViT:
        """The Flax module, holding these parameters."""
        return build_module(self.spec.vit, self.params)

    @property
    def parameter_count(self) -> int:
        """Number of values in the parameters."""
        return sum(array.size for _, array in named_arrays(self.params))

    @property
    def parameter_bytes(self) -> int:
        """Bytes that the parameters take, as they are stored."""
        return sum(array.nbytes for _, array in named_arrays(self.params))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over all that decides a score: architecture, recipe and every parameter. Names do not count."""
        spec = self.spec.to_dict()
        deciding = {name: spec[name] for name in ("vit", "preprocess", "kernel_dtype", "gaussian_embedding")}
        state = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode())
        for name, array in sorted(named_arrays(self.params)):
            value = np.ascontiguousarray(array)
            state.update(f"{name} {value.dtype} {value.shape}".encode())
            state.update(value.view(np.uint8).data if value.size else b"")
        return state.hexdigest()


@functools.partial(jax.jit, static_argnums=0)
def _embed(function: EncoderFunction, params: Params, images: jax.Array) -> jax.Array:
    return function(params, images)


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


@functools.lru_cache(maxsize=64)
def _abstract(spec: ViTSpec) -> tuple[Any, Any]:
    return nnx.split(nnx.eval_shape(lambda: ViT(spec, rngs=nnx.Rngs(0))))
