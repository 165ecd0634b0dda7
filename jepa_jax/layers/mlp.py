"""The MLP: y = W2^T a(W1^T x), and its gated form, SwiGLU: y = W2^T (silu(g) * u) with g, u = W1^T x.

With the activation's derivatives D = diag(da / dh) at a token, the pullback of a row c is

    c W2^T D W1^T,

and for gated units the same with both halves of the hidden layer: D of 2h values and W2 twice. What stands between
the rows and the token is one matrix M = W2^T D W1^T, d x d. Building it costs d^2 h multiplications and applying it to
R rows R d^2, against 2 R d h layer by layer: with h = 4 d, 5 against 8 at R = d. So where it is cheaper, the MLP *is*
one matrix for each token, and the hidden layer never exists for all rows.

M is linear in D: with all products of two weights that meet in a hidden unit (the kernels' Khatri-Rao product, d^2 h
numbers, made once), the matrices of all tokens are one product, [N, h] x [h, d^2]. That is for GPUs, which would
otherwise write and read D W1^T of every token.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jepa_jax.layers.layer import Cost, Sizes, TokenLayer, activation_derivative, kernel_pair, linear
from jepa_jax.layers.layer_norm import LayerNorm, NormResiduals, pullback_folded
from jepa_jax.numerics.products import Products
from jepa_jax.numerics.triton import Parts

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]


class MLPKernels(NamedTuple):
    """The kernels of the way back, constants folded in; h counts both halves of gated units.

    Attributes:
        outward: [h, e], from outputs to hidden units.
        inward: [d, h], from hidden units to inputs.
        scale: what is missing in the two, see `Products.kernel`.
        khatri_rao: [h, d, e], products of the two unit by unit, times `_raised`; where `Products.khatri_rao` says so.
    """

    outward: jax.Array
    inward: jax.Array
    scale: jax.Array | None
    khatri_rao: jax.Array | Parts | None


class HiddenLayer(TokenLayer, nnx.Module):
    """What both forms share: two kernels, with elementwise units between them."""

    parts = 1
    """Hidden values that make one unit."""

    def maps(self) -> tuple[nnx.Linear, nnx.Linear]:
        """Into the hidden layer, and out of it."""
        raise NotImplementedError

    def activate(self, hidden: jax.Array) -> jax.Array:
        """What stands between the two, elementwise: [..., parts * h] -> [..., h]."""
        raise NotImplementedError

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[..., d] -> [..., d]."""
        inward, outward = self.maps()
        return outward(self.activate(inward(tokens)))

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[..., d] -> [..., d], and the activation's derivatives, [..., parts * h]."""
        inward, outward = self.maps()
        hidden = inward(tokens)
        return outward(self.activate(hidden)), activation_derivative(self.activate, hidden, self.parts)

    def prepare(
        self, products: Products, norm: LayerNorm | None = None, layer_scale: jax.Array | None = None
    ) -> MLPKernels:
        """The kernels of the way back, with a norm before and a scale of the outputs [d] behind folded in."""
        inward, outward = (layer.kernel[...] for layer in self.maps())
        if layer_scale is not None:
            outward = outward * layer_scale
        inward = inward if norm is None else norm.fold(inward)
        outward, inward, scale = kernel_pair(products, jnp.tile(outward, (self.parts, 1)), inward)
        if not products.khatri_rao:
            return MLPKernels(outward, inward, scale, None)
        wide = [kernel.astype(np.promote_types(kernel.dtype, np.float32)) for kernel in (inward.T, outward)]
        both = wide[0][:, :, None] * wide[1][:, None, :] * _raised(len(outward))
        return MLPKernels(outward, inward, scale, products.prepared(both))

    def pullback_tokens(
        self,
        kernels: MLPKernels,
        residuals: jax.Array,
        cotangent: jax.Array,
        products: Products,
        norm: NormResiduals | None = None,
        onto: jax.Array | None = None,
    ) -> jax.Array:
        """[..., R, d] -> [..., R, d]; ``residuals`` are the activation's derivatives.

        Of the two that may stand before the layer, see `pullback_folded`.
        """
        if _folds(*kernels.inward.shape, rows=cotangent.shape[-2]):
            pulled = products("...re,...de->...rd", cotangent, self._matrix(kernels, residuals, products))
        else:
            hidden = products.summed("...re,he->...rh", cotangent, kernels.outward) * residuals[..., None, :]
            pulled = products("...rh,dh->...rd", products.stored(hidden), kernels.inward)
        return pullback_folded(norm, pulled, products, kernels.scale, onto)

    @staticmethod
    def _matrix(kernels: MLPKernels, slopes: jax.Array, products: Products) -> jax.Array:
        """M of each token, [..., d, e], with the activation's derivatives [..., h]."""
        # For one token alone, all products of weights would be read for as many multiplications.
        if kernels.khatri_rao is not None and slopes.size > slopes.shape[-1]:
            return products("...h,hde->...de", slopes / _raised(slopes.shape[-1]), kernels.khatri_rao)
        return products("dh,...he->...de", kernels.inward, slopes[..., None] * kernels.outward.astype(slopes.dtype))

    def cost(self, sizes: Sizes) -> Cost:
        """Over the active tokens on the way back."""
        inward, outward = (layer.kernel.shape for layer in self.maps())
        (width, hidden), rows, khatri_rao = inward, sizes.rows, sizes.products.khatri_rao
        forward = math.prod(inward) + math.prod(outward)
        folds = _folds(width, hidden, rows)
        at_once = sizes.schedule.at_once(sizes.active)
        made = width * (width if khatri_rao else width + hidden) if folds else 2 * rows * hidden
        passing_by = 0 if sizes.schedule.loops else sizes.active * rows * width
        return Cost(
            forward=sizes.tokens * forward,
            pullback=sizes.active * (width * width * (hidden + rows) if folds else 2 * rows * width * hidden),
            by_vjp=rows * sizes.tokens * forward,
            kernels=(2 + width * khatri_rao) * width * hidden * sizes.stored,
            residuals=sizes.tokens * hidden * sizes.itemsize,
            workspace=(at_once * made + passing_by) * sizes.stored,
        )


def _folds(width: int, hidden: int, rows: int) -> bool:
    """Whether one matrix a token is cheaper than two products a row."""
    return width * (hidden + rows) < 2 * rows * hidden


def _raised(hidden: int) -> int:
    """A power of two near the square root of h: products of weights, some h times smaller than their sums, are stored
    so much larger, and slopes so much smaller, to lie well within float16's range.
    """
    return 2 ** (hidden.bit_length() // 2)


class MLP(HiddenLayer):
    """Two layers with a GELU between them: the exact one (erf), ``gelu_tanh`` near it, or OpenAI's ``quick_gelu``."""

    def __init__(self, width: int, hidden: int, activation: Activation, rngs: nnx.Rngs):
        self.activation = activation
        self.fc1 = linear(width, hidden, rngs)
        self.fc2 = linear(hidden, width, rngs)

    def maps(self) -> tuple[nnx.Linear, nnx.Linear]:
        """See `HiddenLayer`."""
        return self.fc1, self.fc2

    def activate(self, hidden: jax.Array) -> jax.Array:
        """[..., h] -> [..., h]."""
        if self.activation == "quick_gelu":
            return hidden * jax.nn.sigmoid(1.702 * hidden)
        return jax.nn.gelu(hidden, approximate=self.activation == "gelu_tanh")


class SwiGLU(HiddenLayer):
    """silu(gate) * up, projected down; gate and up are the two halves of one kernel."""

    parts = 2

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.gate_up = linear(width, 2 * hidden, rngs)
        self.down = linear(hidden, width, rngs)

    def maps(self) -> tuple[nnx.Linear, nnx.Linear]:
        """See `HiddenLayer`."""
        return self.gate_up, self.down

    def activate(self, hidden: jax.Array) -> jax.Array:
        """Both halves [..., 2h] to one, [..., h]."""
        gate, up = jnp.split(hidden, 2, axis=-1)
        return jax.nn.silu(gate) * up
