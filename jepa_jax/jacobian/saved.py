"""The forward pass of our vision transformers, and what the reverse sweep of `rules` needs of it.

Everything that all rows share is worked out here, once: normalised tokens, queries, keys and values, slopes of the
hidden units, and kernels with every constant folded in (`pullbacks` says which).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.encoders.vit import MLP, Block, SwiGLU, ViT
from jepa_jax.jacobian import pullbacks


class Norm(NamedTuple):
    """A LayerNorm's forward pass: normalised tokens [N, d] and 1 / std [N]."""

    normalized: jax.Array
    inverse_std: jax.Array


class Weights(NamedTuple):
    """A block's kernels for the way back, with everything constant folded in; see `pullbacks`."""

    mlp_outward: jax.Array  # [h or 2h, d]
    mlp_inward: jax.Array  # [d, h or 2h]
    attention_outward: jax.Array  # [d, d]
    attention_inward: jax.Array  # [d, 3d]


class Saved(NamedTuple):
    """What the sweep needs of one block."""

    norm1: Norm
    query: jax.Array  # [H, N, dh], scaled by 1 / sqrt(dh)
    key: jax.Array
    value: jax.Array
    norm2: Norm
    slopes: jax.Array  # [N, h], or [N, 2h] for gated units
    weights: Weights


def forward_pass(spec: ViTSpec, module: ViT, tokens: jax.Array) -> tuple[jax.Array, Saved]:
    """The blocks' forward pass, [N, d] to [N, d], and what the sweep needs of each block, stacked."""
    graph, first = nnx.split(module.blocks[0])
    states = [first, *(nnx.state(block) for block in module.blocks[1:])]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def step(tokens: jax.Array, state: nnx.State) -> tuple[jax.Array, Saved]:
        return _block_forward(spec, nnx.merge(graph, state), tokens)

    return jax.lax.scan(step, tokens, stacked)


def _block_forward(spec: ViTSpec, block: Block, tokens: jax.Array) -> tuple[jax.Array, Saved]:
    """One block's own forward pass."""
    head_width = spec.width // spec.heads
    norm1 = Norm(*block.norm1.normalize(tokens))
    entering = block.norm1(tokens)
    qkv = block.attention.qkv(entering).reshape(-1, 3, spec.heads, head_width)
    query, key, value = qkv.transpose(1, 2, 0, 3)
    attended = block.attention(entering[None])[0]
    tokens = tokens + (attended * block.layer_scale1 if block.scaled else attended)
    norm2 = Norm(*block.norm2.normalize(tokens))
    entering = block.norm2(tokens)
    mixed = block.mlp(entering)
    saved = Saved(
        norm1, query * head_width**-0.5, key, value, norm2, _slopes(block.mlp, entering), _weights(spec, block)
    )
    return tokens + (mixed * block.layer_scale2 if block.scaled else mixed), saved


def _slopes(mlp: MLP | SwiGLU, entering: jax.Array) -> jax.Array:
    """Derivative of each hidden unit's output by each of its inputs, [N, h] or [N, 2h]."""
    hidden = mlp.gate_up(entering) if isinstance(mlp, SwiGLU) else mlp.fc1(entering)
    parts = 2 if isinstance(mlp, SwiGLU) else 1
    width = hidden.shape[-1] // parts

    def slope(part: int) -> jax.Array:
        tangent = jnp.zeros_like(hidden).at[:, part * width : (part + 1) * width].set(1.0)
        return jax.jvp(mlp.activate, (hidden,), (tangent,))[1]

    return jnp.concatenate([slope(part) for part in range(parts)], axis=-1)


def _weights(spec: ViTSpec, block: Block) -> Weights:
    if isinstance(block.mlp, SwiGLU):
        first, second = block.mlp.gate_up.kernel[...], block.mlp.down.kernel[...]
    else:
        first, second = block.mlp.fc1.kernel[...], block.mlp.fc2.kernel[...]
    out = block.attention.out.kernel[...]
    if block.scaled:
        second, out = second * block.layer_scale2, out * block.layer_scale1
    outward = jnp.concatenate([second, second]) if isinstance(block.mlp, SwiGLU) else second
    qkv = block.attention.qkv.kernel[...].reshape(spec.width, 3, spec.width)
    scale = jnp.array([(spec.width // spec.heads) ** -0.5, 1.0, 1.0], qkv.dtype)
    inward = (qkv * scale[:, None]).reshape(spec.width, -1)
    return Weights(
        mlp_outward=outward,
        mlp_inward=pullbacks.centered(first * block.norm2.scale[...][:, None]),
        attention_outward=out,
        attention_inward=pullbacks.centered(inward * block.norm1.scale[...][:, None]),
    )
