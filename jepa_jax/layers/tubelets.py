"""Non-overlapping tubelets, patches of several frames, times one matrix: a strided 3-D convolution.

The way back is that of patches (`jepa_jax.layers.patches`), with t * 3pp values in a patch of t frames.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.layers.layer import linear
from jepa_jax.layers.patches import PatchEmbedding


class TubeletEmbedding(PatchEmbedding):
    """Clips to patch tokens.

    Args:
        frames: of a patch, t.
        patch_size: its side, p.
        width: d.
        rngs: where the kernel begins.
        use_bias: whether the projection has one.
    """

    def __init__(self, frames: int, patch_size: int, width: int, rngs: nnx.Rngs, use_bias: bool = True):
        self.frames, self.patch_size = frames, patch_size
        self.projection = linear(frames * 3 * patch_size**2, width, rngs, use_bias=use_bias)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, T, H, W, 3] -> [B, T/t, rows, columns, d]; what no whole patch covers is left out."""
        batch, times, rows, columns = images.shape[0], *self._grid(images.shape[1:])
        t, p = self.frames, self.patch_size
        patches = images[:, : times * t, : rows * p, : columns * p].reshape(batch, times, t, rows, p, columns, p, 3)
        patches = patches.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, times, rows, columns, -1)
        return self.projection(patches)

    def to_input(self, transpose: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """[P, t * 3pp, R] to clips [R, T, H, W, 3], zero where no patch is."""
        t, p = self.frames, self.patch_size
        times, rows, columns = self._grid(shape)
        patches = transpose.reshape(times, rows, columns, t, p, p, 3, -1)
        clips = patches.transpose(7, 0, 3, 1, 4, 2, 5, 6).reshape(-1, times * t, rows * p, columns * p, 3)
        missing = ((0, whole - covered) for whole, covered in zip(shape[:3], clips.shape[1:4], strict=True))
        return jnp.pad(clips, ((0, 0), *missing, (0, 0)))

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        return shape[0] // self.frames, shape[1] // self.patch_size, shape[2] // self.patch_size
