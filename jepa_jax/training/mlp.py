"""A multilayer perceptron: the encoder of vectors in the studies."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jepa_jax.errors import ArgumentError

Params = dict[str, Any]

RESIDUAL_START = 0.1
"""What a residual encoder's last layer starts with, as a share of an ordinary one's."""


@dataclass(frozen=True)
class MLP:
    """From vectors of D values to embeddings of K: hidden layers with a smooth activation, and a linear last one.

    Smooth, because its Jacobian is what is scored: a ReLU's is piecewise constant.

    Attributes:
        inputs: D.
        hidden: widths of the hidden layers.
        outputs: K.
        activation: between layers.
        residual: whether a linear map of the inputs is added to the last layer. It starts as a random rotation and
            the last layer small, so that the encoder starts near an isometry and has to learn the curvature alone.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    activation: Literal["gelu", "tanh"] = "gelu"
    residual: bool = False

    def __post_init__(self):
        if min((self.inputs, *self.hidden, self.outputs)) < 1:
            raise ArgumentError(f"inputs, hidden and outputs of {self} must be at least 1.")

    @property
    def embedding_size(self) -> int:
        """K."""
        return self.outputs

    def init(self, seed: int | jax.Array) -> Params:
        """Random parameters: kernels of variance 1 / inputs, biases zero."""
        widths = (self.inputs, *self.hidden, self.outputs)
        key = jax.random.key(seed) if isinstance(seed, int) else seed
        layers = {}
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            kernel = jax.random.normal(jax.random.fold_in(key, i), (before, after)) * before**-0.5
            layers[f"layer_{i}"] = {"kernel": kernel, "bias": jnp.zeros(after)}
        if self.residual:
            layers[f"layer_{len(self.hidden)}"]["kernel"] *= RESIDUAL_START
            square = jax.random.normal(jax.random.fold_in(key, len(widths)), (max(self.inputs, self.outputs),) * 2)
            rotation = jnp.linalg.qr(square)[0]
            layers["shortcut"] = {"kernel": rotation[: self.inputs, : self.outputs]}
        return layers

    def __call__(self, params: Params, vectors: jax.Array) -> jax.Array:
        """[..., D] -> [..., K]."""
        inputs = vectors
        for i in range(len(self.hidden) + 1):
            layer = params[f"layer_{i}"]
            vectors = vectors @ layer["kernel"] + layer["bias"]
            if i < len(self.hidden):
                vectors = jnp.tanh(vectors) if self.activation == "tanh" else jax.nn.gelu(vectors, approximate=False)
        return vectors + inputs @ params["shortcut"]["kernel"] if self.residual else vectors
