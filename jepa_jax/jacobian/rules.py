"""The Jacobian of our vision transformers by an explicit reverse sweep: layers outside, all rows inside.

Equal to `reverse.reverse_jacobian` up to rounding, at 0.72 of its multiplications for a ViT-S (a test counts
them); and the intermediates of the hidden layer never exist for all rows. See `pullbacks`.

Outside attention everything happens token by token, in loops over tokens whose operands stay in the caches.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jepa_jax.encoders.encoder import Params, build_module
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.encoders.vit import MLP, Block, SwiGLU, ViT
from jepa_jax.jacobian import pullbacks

SWEEP_BYTES = 6 * 2**30
"""Memory that a sweep may take by default: a ViT-B at 224 pixels goes in one, a ViT-H at 448 in seven."""


class _Norm(NamedTuple):
    """A LayerNorm's forward pass: normalised tokens [N, d] and 1 / std [N]."""

    normalized: jax.Array
    inverse_std: jax.Array


class _Weights(NamedTuple):
    """A block's kernels for the way back, with everything constant folded in; see `pullbacks`."""

    mlp_outward: jax.Array  # [d, h or 2h]
    mlp_inward: jax.Array  # [h or 2h, d]
    attention_outward: jax.Array  # [d, d]
    attention_inward: jax.Array  # [3, d, d]


class _Saved(NamedTuple):
    """What the sweep needs of one block."""

    norm1: _Norm
    query: jax.Array  # [H, N, dh], scaled by 1 / sqrt(dh)
    key: jax.Array
    value: jax.Array
    norm2: _Norm
    slopes: jax.Array  # [N, h], or [N, 2h] for gated units
    weights: _Weights


def rules_jacobian(spec: ViTSpec, params: Params, image: jax.Array, block_size: int | None = None) -> jax.Array:
    """Jacobian of an encoder at one image.

    Args:
        spec: the architecture.
        params: its parameters.
        image: [H, W, 3].
        block_size: rows in one sweep; by default all, which is fastest, or as many as `SWEEP_BYTES` allow.

    Returns:
        [K, H, W, 3].
    """
    module = build_module(spec, params)
    tokens = module.embed_unnormalized(image[None])[0]
    before = None
    if spec.pre_norm:
        before = _Norm(*module.pre_norm.normalize(tokens))
        tokens = module.pre_norm(tokens)
    tokens, blocks = _forward(spec, module, tokens)
    final = _Norm(*module.norm.normalize(tokens))
    pooled = module.pool(module.norm(tokens)[None])[0]
    head = jax.jacrev(lambda value: module.project(value[None])[0])(pooled)  # [K, d]

    def sweep(rows: jax.Array) -> jax.Array:
        cotangent = _start(spec, module, rows, final)
        cotangent = _backward(blocks, cotangent)[spec.prefix_tokens :]
        if before is not None:
            gained = pullbacks.centered(cotangent * module.pre_norm.scale)
            cotangent = jax.vmap(pullbacks.layer_norm)(gained, *_patches(spec, before))
        return _to_image(spec, module, cotangent, image.shape)

    size = head.shape[0]
    block_size = block_size or _default_rows(spec, size, tokens)
    if block_size >= size:
        return sweep(head)
    whole = size // block_size * block_size
    parts = jax.lax.map(sweep, head[:whole].reshape(-1, block_size, head.shape[-1]))
    jacobian = parts.reshape(whole, *image.shape)
    return jacobian if whole == size else jnp.concatenate([jacobian, sweep(head[whole:])])


def _default_rows(spec: ViTSpec, size: int, tokens: jax.Array) -> int:
    """Rows that fit into `SWEEP_BYTES`, in sweeps of equal size."""
    count = tokens.shape[0]
    # Eight arrays [tokens, rows, width] live at once around attention, and one head's [tokens, rows, tokens].
    row_bytes = count * (8 * spec.width + count) * tokens.dtype.itemsize
    sweeps = math.ceil(size * row_bytes / SWEEP_BYTES)
    return math.ceil(size / sweeps)


def _forward(spec: ViTSpec, module: ViT, tokens: jax.Array) -> tuple[jax.Array, _Saved]:
    """The blocks' forward pass, [N, d] to [N, d], and what the sweep needs of each block, stacked."""
    graph, first = nnx.split(module.blocks[0])
    states = [first, *(nnx.state(block) for block in module.blocks[1:])]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def step(tokens: jax.Array, state: nnx.State) -> tuple[jax.Array, _Saved]:
        return _block_forward(spec, nnx.merge(graph, state), tokens)

    return jax.lax.scan(step, tokens, stacked)


def _block_forward(spec: ViTSpec, block: Block, tokens: jax.Array) -> tuple[jax.Array, _Saved]:
    """One block's own forward pass."""
    head_width = spec.width // spec.heads
    norm1 = _Norm(*block.norm1.normalize(tokens))
    entering = block.norm1(tokens)
    qkv = block.attention.qkv(entering).reshape(-1, 3, spec.heads, head_width)
    query, key, value = qkv.transpose(1, 2, 0, 3)
    attended = block.attention(entering[None])[0]
    tokens = tokens + (attended * block.layer_scale1 if block.scaled else attended)
    norm2 = _Norm(*block.norm2.normalize(tokens))
    entering = block.norm2(tokens)
    mixed = block.mlp(entering)
    saved = _Saved(
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


def _weights(spec: ViTSpec, block: Block) -> _Weights:
    if isinstance(block.mlp, SwiGLU):
        first, second = block.mlp.gate_up.kernel[...], block.mlp.down.kernel[...]
    else:
        first, second = block.mlp.fc1.kernel[...], block.mlp.fc2.kernel[...]
    out = block.attention.out.kernel[...]
    if block.scaled:
        second, out = second * block.layer_scale2, out * block.layer_scale1
    outward = jnp.concatenate([second.T, second.T], axis=-1) if isinstance(block.mlp, SwiGLU) else second.T
    qkv = block.attention.qkv.kernel[...].reshape(spec.width, 3, spec.width).transpose(1, 2, 0)
    scale = jnp.array([(spec.width // spec.heads) ** -0.5, 1.0, 1.0], qkv.dtype)
    return _Weights(
        mlp_outward=outward,
        mlp_inward=pullbacks.centered(first.T * block.norm2.scale),
        attention_outward=out.T,
        attention_inward=pullbacks.centered(qkv * scale[:, None, None] * block.norm1.scale),
    )


def _patches(spec: ViTSpec, norm: _Norm) -> _Norm:
    """The patch tokens' share of a LayerNorm."""
    return jax.tree.map(lambda leaf: leaf[spec.prefix_tokens :], norm)


def _start(spec: ViTSpec, module: ViT, rows: jax.Array, final: _Norm) -> jax.Array:
    """Cotangents of the last block's output: of the class token alone, [1, R, d], or of all tokens."""
    gained = pullbacks.centered(rows * module.norm.scale)
    if spec.pooling == "class_token":
        return pullbacks.layer_norm(gained, final.normalized[0], final.inverse_std[0])[None]
    patches = _patches(spec, final)
    shared = gained / patches.inverse_std.shape[0]
    cotangent = jax.vmap(pullbacks.layer_norm, in_axes=(None, 0, 0))(shared, *patches)
    return jnp.pad(cotangent, ((spec.prefix_tokens, 0), (0, 0), (0, 0)))


def _backward(blocks: _Saved, cotangent: jax.Array) -> jax.Array:
    """From the last block's output to the first block's input, [N, R, d].

    The last block may begin with fewer tokens (the class token alone), so it stands before the scan.
    """
    last = jax.tree.map(lambda leaf: leaf[-1], blocks)
    rest = jax.tree.map(lambda leaf: leaf[:-1], blocks)
    cotangent = _block_backward(last, cotangent)
    return jax.lax.scan(lambda c, block: (_block_backward(block, c), None), cotangent, rest, reverse=True)[0]


def _block_backward(saved: _Saved, cotangent: jax.Array) -> jax.Array:
    """One block, [A, R, d] to [N, R, d].

    Args:
        saved: of the block.
        cotangent: of its output, for the first A of its N tokens; that of the others is zero. Nothing
            is computed for those before attention spreads it to them.
    """
    weights = saved.weights
    heads = saved.query.shape[0]
    active, total = cotangent.shape[0], saved.norm1.inverse_std.shape[0]

    def through_mlp(token: tuple[jax.Array, jax.Array, _Norm]) -> tuple[jax.Array, list[jax.Array]]:
        row, slopes, norm = token
        row = row + pullbacks.mlp(row, slopes, weights.mlp_outward, weights.mlp_inward, *norm)
        return row, jnp.split(row @ weights.attention_outward, heads, axis=-1)

    def through_qkv(kernels: jax.Array, parts: list[jax.Array], norm: _Norm) -> jax.Array:
        gained = jnp.concatenate(parts, axis=-1) @ kernels.reshape(-1, kernels.shape[-1])
        return pullbacks.layer_norm(gained, *norm)

    def first(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[:active], tree)

    # One array per head: they are cut and joined a token at a time, in the caches, and never transposed whole.
    cotangent, outputs = jax.lax.map(through_mlp, (cotangent, *first((saved.slopes, saved.norm2))))
    of_heads = [
        pullbacks.attention(output, saved.query[h, :active], saved.key[h], saved.value[h])
        for h, output in enumerate(outputs)
    ]
    of_query, of_key, of_value = (list(parts) for parts in zip(*of_heads, strict=True))
    if active == total:
        return jax.lax.map(
            lambda token: token[0] + through_qkv(weights.attention_inward, *token[1:]),
            (cotangent, of_query + of_key + of_value, saved.norm1),
        )
    asking = jax.lax.map(
        lambda token: token[0] + through_qkv(weights.attention_inward[:1], *token[1:]),
        (cotangent, of_query, first(saved.norm1)),
    )
    asked = jax.lax.map(
        lambda token: through_qkv(weights.attention_inward[1:], *token), (of_key + of_value, saved.norm1)
    )
    return asked.at[:active].add(asking)


def _to_image(spec: ViTSpec, module: ViT, cotangent: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Cotangents of the patch tokens [P, R, d] to rows of the Jacobian, [R, H, W, 3]."""
    p = spec.patch_size
    rows, columns = shape[0] // p, shape[1] // p
    pixels = cotangent @ module.patch_embedding.projection.kernel[...].T
    pixels = pixels.reshape(rows, columns, -1, p, p, 3)
    return pixels.transpose(2, 0, 3, 1, 4, 5).reshape(-1, *shape)
