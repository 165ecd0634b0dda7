"""The Jacobian of our vision transformers by an explicit reverse sweep: layers outside, all rows inside.

Equal to `reverse.reverse_jacobian` up to rounding, at 0.72 of its multiplications for a ViT-S (a test counts
them); and the intermediates of the hidden layer never exist for all rows. See `pullbacks`.

Outside attention everything happens token by token, in loops over tokens whose operands stay in the caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jepa_jax.encoders.encoder import Params, build_module
from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.encoders.vit import ViT
from jepa_jax.jacobian import pullbacks
from jepa_jax.jacobian.precision import Einsum, Precision, einsum_of
from jepa_jax.jacobian.saved import Norm, Saved, forward_pass

Pullback = Callable[[jax.Array], jax.Array]
"""Cotangents of the output [K, R] to cotangents of the input [..., R]."""


def rules_pullback(
    spec: ViTSpec, params: Params, image: jax.Array, *, precision: Precision = "float32", compact: bool = False
) -> Pullback:
    """The encoder's pullback at one image, for any number of rows at once.

    Args:
        spec: the architecture.
        params: its parameters.
        image: [H, W, 3].
        precision: of the pullback's products.
        compact: leave out the isometry at the end. A patch of p x p x 3 values enters through a kernel E [3pp, d];
            with E = Q R, rows in terms of R span the same volume and have the same singular values as in
            pixels, and are shorter where d < 3pp: all that a spectrum needs.

    Returns:
        A function from cotangents of the embedding [K, R] to columns [P, m, R]: for each of P patches
        m = 3pp pixel values (row, column, channel), or m = min(d, 3pp) if ``compact``.
    """
    einsum = einsum_of(precision)
    module = build_module(spec, params)
    tokens = module.embed_unnormalized(image[None])[0]
    before = None
    if spec.pre_norm:
        before = Norm(*module.pre_norm.normalize(tokens))
        tokens = module.pre_norm(tokens)
    tokens, blocks = forward_pass(spec, module, tokens)
    final = Norm(*module.norm.normalize(tokens))
    pooled = module.pool(module.norm(tokens)[None])[0]
    _, through_head = jax.vjp(lambda value: module.project(value[None])[0], pooled)
    head = jax.vmap(through_head, out_axes=-1)(jnp.eye(spec.embedding_size, dtype=pooled.dtype))[0]  # [d, K]
    into_patch = module.patch_embedding.projection.kernel[...].reshape(-1, spec.width)
    if compact and into_patch.shape[0] > spec.width:
        into_patch = jnp.linalg.qr(into_patch, mode="r")

    def pullback(seeds: jax.Array) -> jax.Array:
        # Before the first token-wise product there is one row of arithmetic per output: always exact.
        cotangent = _start(spec, module, head @ seeds, final)
        cotangent = _backward(einsum, blocks, cotangent)[spec.prefix_tokens :]
        if before is not None:
            gain = module.pre_norm.scale[...][:, None]
            cotangent = jax.lax.map(
                lambda token: pullbacks.layer_norm(pullbacks.centered(token[0] * gain), *token[1]),
                (cotangent, _patches(spec, before)),
            )
        return jax.lax.map(lambda token: einsum("md,dr->mr", into_patch, token), cotangent)

    return pullback


def rules_columns(
    spec: ViTSpec,
    params: Params,
    image: jax.Array,
    *,
    rows: jax.Array | None = None,
    block_size: int | None = None,
    precision: Precision = "float32",
    compact: bool = False,
) -> jax.Array:
    """Rows of the Jacobian, as columns: in sweeps of ``block_size`` rows each, by default one of all.

    Args:
        spec: see `rules_pullback`, as for all but the next two.
        params: the encoder's parameters.
        image: [H, W, 3].
        rows: which rows, [R]; by default all. A number outside 0 .. K - 1 gives zeros.
        block_size: rows in one sweep; the sweeps are made equal. Fewer rows need less memory, and more work.
        precision: of the products.
        compact: whether rows may be shortened.

    Returns:
        [P, m, R].
    """
    pullback = rules_pullback(spec, params, image, precision=precision, compact=compact)
    size = spec.embedding_size
    rows = jnp.arange(size) if rows is None else rows
    sweeps = math.ceil(rows.size / (block_size or rows.size))
    if sweeps == 1:
        return pullback(jax.nn.one_hot(rows, size, axis=0, dtype=image.dtype))
    each = math.ceil(rows.size / sweeps)
    padded = jnp.pad(rows, (0, sweeps * each - rows.size), constant_values=size).reshape(sweeps, each)
    columns = jax.lax.map(lambda some: pullback(jax.nn.one_hot(some, size, axis=0, dtype=image.dtype)), padded)
    return jnp.moveaxis(columns, 0, -2).reshape(*columns.shape[1:-1], -1)[..., : rows.size]


def columns_to_jacobian(spec: ViTSpec, columns: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Columns in pixels [P, 3pp, R] to rows of the Jacobian, [R, H, W, 3]."""
    p = spec.patch_size
    patches = columns.reshape(shape[0] // p, shape[1] // p, p, p, 3, -1)
    return patches.transpose(5, 0, 2, 1, 3, 4).reshape(-1, *shape)


def _patches(spec: ViTSpec, norm: Norm) -> Norm:
    """The patch tokens' share of a LayerNorm."""
    return jax.tree.map(lambda leaf: leaf[spec.prefix_tokens :], norm)


def _start(spec: ViTSpec, module: ViT, rows: jax.Array, final: Norm) -> jax.Array:
    """Cotangents of the last block's output: of the class token alone, [1, d, R], or of all tokens."""
    gained = pullbacks.centered(rows * module.norm.scale[...][:, None])
    if spec.pooling == "class_token":
        return pullbacks.layer_norm(gained, final.normalized[0], final.inverse_std[0])[None]
    patches = _patches(spec, final)
    shared = gained / patches.inverse_std.shape[0]
    cotangent = jax.vmap(pullbacks.layer_norm, in_axes=(None, 0, 0))(shared, *patches)
    return jnp.pad(cotangent, ((spec.prefix_tokens, 0), (0, 0), (0, 0)))


def _backward(einsum: Einsum, blocks: Saved, cotangent: jax.Array) -> jax.Array:
    """From the last block's output to the first block's input, [N, d, R].

    The last block may begin with fewer tokens (the class token alone), so it stands before the scan.
    """
    last = jax.tree.map(lambda leaf: leaf[-1], blocks)
    rest = jax.tree.map(lambda leaf: leaf[:-1], blocks)
    cotangent = _block_backward(einsum, last, cotangent)
    return jax.lax.scan(lambda c, block: (_block_backward(einsum, block, c), None), cotangent, rest, reverse=True)[0]


def _block_backward(einsum: Einsum, saved: Saved, cotangent: jax.Array) -> jax.Array:
    """One block, [A, d, R] to [N, d, R].

    Args:
        einsum: takes the products with rows in them.
        saved: of the block.
        cotangent: of its output, for the first A of its N tokens; that of the others is zero. Nothing
            is computed for those before attention spreads it to them.
    """
    weights = saved.weights
    heads = saved.query.shape[0]
    width = cotangent.shape[1]
    active, total = cotangent.shape[0], saved.norm1.inverse_std.shape[0]

    def through_mlp(token: tuple[jax.Array, jax.Array, Norm]) -> tuple[jax.Array, list[jax.Array]]:
        row, slopes, norm = token
        row = row + pullbacks.mlp(einsum, row, slopes, weights.mlp_outward, weights.mlp_inward, *norm)
        return row, jnp.split(einsum("de,er->dr", weights.attention_outward, row), heads)

    def through_qkv(kernel: jax.Array, parts: list[jax.Array], norm: Norm) -> jax.Array:
        return pullbacks.layer_norm(einsum("de,er->dr", kernel, jnp.concatenate(parts)), *norm)

    def first(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[:active], tree)

    def of_keys(token: jax.Array) -> list[jax.Array]:
        return [jax.lax.dynamic_index_in_dim(part, token, axis=1, keepdims=False) for part in of_key]

    # One array per head: they are cut and joined a token at a time, in the caches, and never transposed whole.
    cotangent, outputs = jax.lax.map(through_mlp, (cotangent, *first((saved.slopes, saved.norm2))))
    of_heads = []
    for h, output in enumerate(outputs):
        query = saved.query[h, :active]
        if of_heads:
            # One head after the other, by a dependency that XLA cannot drop (it drops barriers on CPUs): side by
            # side, each head would hold its own [tokens, tokens, rows].
            query = query + 0.0 * of_heads[-1][1][0, 0, 0]
        of_heads.append(pullbacks.attention(einsum, output, query, saved.key[h], saved.value[h]))
    of_query, of_key, of_value = (list(parts) for parts in zip(*of_heads, strict=True))
    tokens = jnp.arange(total)
    if active == total:
        return jax.lax.map(
            lambda token: (
                token[0] + through_qkv(weights.attention_inward, token[1] + of_keys(token[2]) + token[3], token[4])
            ),
            (cotangent, of_query, tokens, of_value, saved.norm1),
        )
    asking = jax.lax.map(
        lambda token: token[0] + through_qkv(weights.attention_inward[:, :width], *token[1:]),
        (cotangent, of_query, first(saved.norm1)),
    )
    asked = jax.lax.map(
        lambda token: through_qkv(weights.attention_inward[:, width:], of_keys(token[0]) + token[1], token[2]),
        (tokens, of_value, saved.norm1),
    )
    return asked.at[:active].add(asking)
