"""Non-overlapping patches times one matrix E [3pp, d]: a strided convolution, written as the product that it is.

The way back through it is c E^T, 3pp pixel values a patch. With E = Q R (Q with orthonormal columns), rows in terms of
R, c R^T, span the same volume and have the same singular values, and are shorter where d < 3pp: all that a spectrum
needs. That is the compact form.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.layer import Cost, EntryLayer, Sizes, linear
from jepa_jax.numerics.products import Products


class PatchKernels(NamedTuple):
    """The kernel of the way back.

    Attributes:
        kernel: [d, m].
        scale: what is missing in it, see `Products.kernel`.
    """

    kernel: jax.Array
    scale: jax.Array | None


class PatchEmbedding(EntryLayer, nnx.Module):
    """Images to patch tokens."""

    def __init__(self, patch_size: int, width: int, rngs: nnx.Rngs, use_bias: bool = True):
        self.patch_size = patch_size
        self.projection = linear(3 * patch_size**2, width, rngs, use_bias=use_bias)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, rows, columns, d]; what no whole patch covers, right and below, is left out."""
        batch, height, width, channels = images.shape
        p = self.patch_size
        rows, columns = height // p, width // p
        patches = images[:, : rows * p, : columns * p].reshape(batch, rows, p, columns, p, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, p * p * channels)
        return self.projection(patches)

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, tuple[()]]:
        """An image [H, W, 3] to its patches, row by row, [P, d]; nothing is kept."""
        patches = self(tokens[None])[0]
        return patches.reshape(-1, patches.shape[-1]), ()

    def prepare(self, products: Products) -> PatchKernels:
        """E^T, [d, 3pp]."""
        return PatchKernels(*products.kernel(self.projection.kernel[...].T))

    def prepare_compact(self, products: Products) -> PatchKernels:
        """R^T, [d, min(d, 3pp)]."""
        kernel = self.projection.kernel[...]
        if kernel.shape[0] > kernel.shape[1]:
            kernel = jnp.linalg.qr(kernel, mode="r")
        return PatchKernels(*products.kernel(kernel.T))

    def pullback_tokens(
        self, kernels: PatchKernels, residuals: tuple[()], cotangent: jax.Array, products: Products
    ) -> jax.Array:
        """[..., R, d] -> [..., R, m], m pixel values (row, column, channel) or their compact form; not rounded."""
        del residuals
        pixels = products.summed("...rd,dm->...rm", cotangent, kernels.kernel)
        return pixels if kernels.scale is None else pixels * kernels.scale

    def to_input(self, transpose: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """[P, 3pp, R] to images [R, H, W, 3], zero where no patch is."""
        p = self.patch_size
        rows, columns = shape[0] // p, shape[1] // p
        patches = transpose.reshape(rows, columns, p, p, 3, -1)
        images = patches.transpose(5, 0, 2, 1, 3, 4).reshape(-1, rows * p, columns * p, 3)
        return jnp.pad(images, ((0, 0), (0, shape[0] - rows * p), (0, shape[1] - columns * p), (0, 0)))

    def cost(self, sizes: Sizes) -> Cost:
        """Over the patches, in the compact form."""
        pixels, width = self.projection.kernel.shape
        entering = min(pixels, width)
        return Cost(
            forward=sizes.patches * pixels * width,
            pullback=sizes.patches * sizes.rows * width * entering,
            by_vjp=sizes.patches * sizes.rows * width * pixels,
            kernels=width * entering * sizes.stored,
            jacobian=sizes.patches * sizes.rows * entering * sizes.itemsize,
            workspace=2 * sizes.patches * sizes.rows * max(width, entering) * sizes.itemsize,
        )
