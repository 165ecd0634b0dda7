"""Pullbacks of a transformer's layers for many rows at once: the exact rules that undercut one `jax.vjp` per row.

A cotangent is an array [tokens, rows, width]: one row of the Jacobian per entry of the middle axis.
All rows share the forward pass, so what depends on the token alone is worked out once:

* **The MLP is one matrix per token.** Its pullback is c -> c (W2^T diag(slope) W1^T), a d x d matrix.
  Building it costs 8 d^3 (for an MLP four times as wide), applying it to K rows 2 K d^2, against
  16 K d^2 layer by layer: 10 against 16 at K = d. LayerScale, LayerNorm and their gains are folded in.
* **LayerNorm is a rank-one update.** v -> (v - mean(v) - x (v . x) / d) / std, where x is the normalised
  token; the gain and the mean are constant matrices and go into the weights once.
* **Attention needs no N x N product for queries.** With P_i = A_i (V - O_i), [dh, N] per head and query,
  the logits' cotangent is dO_i P_i (the softmax's own sum is in it), and the query's is
  dO_i (P_i K): one dh x dh covariance matrix.

The formulas hold for any family of `jepa_jax.encoders.vit.ViT`. Tests compare each with `jax.vjp`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def centered(kernel: jax.Array) -> jax.Array:
    """Subtract each row's mean: the part of LayerNorm's pullback that is the same for every token."""
    return kernel - jnp.mean(kernel, axis=-1, keepdims=True)


def layer_norm(cotangent: jax.Array, normalized: jax.Array, inverse_std: jax.Array) -> jax.Array:
    """Pull back through x -> (x - mean) / std, given cotangents that are `centered` already.

    Args:
        cotangent: [R, d], times the gain, with zero mean.
        normalized: the normalised token, [d].
        inverse_std: 1 / sqrt(variance + eps), a scalar.
    """
    along = cotangent @ normalized / normalized.shape[-1]
    return (cotangent - along[:, None] * normalized) * inverse_std


def mlp(
    cotangent: jax.Array,
    slopes: jax.Array,
    outward: jax.Array,
    inward: jax.Array,
    normalized: jax.Array,
    inverse_std: jax.Array,
) -> jax.Array:
    """Pull rows back through LayerNorm, MLP and LayerScale of one token; the residual is not added.

    Args:
        cotangent: [R, d].
        slopes: derivative of the hidden units' outputs by each of their inputs, [h] or, for gated
            units, both halves, [2h].
        outward: the way back from outputs to hidden units: W2^T with LayerScale, [d, h] or [d, 2h].
        inward: from hidden units to normalised tokens: W1^T with the gain, centered, [h or 2h, d].
        normalized: the normalised token, [d].
        inverse_std: its 1 / std.

    Returns:
        [R, d].
    """
    rows, width = cotangent.shape
    hidden = slopes.shape[-1]
    folded = width * hidden + rows * width  # products of the two ways, by width
    unfolded = 2 * rows * hidden
    if folded < unfolded:
        matrix = layer_norm((outward * slopes) @ inward, normalized, inverse_std)
        return cotangent @ matrix
    return layer_norm(((cotangent @ outward) * slopes) @ inward, normalized, inverse_std)


def attention(
    cotangent: jax.Array,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pull rows back through one head: softmax(q k^T) v, with the scale already in the query.

    Args:
        cotangent: of the head's outputs, [Q, R, dh]; Q queries may be fewer than N keys.
        query: [Q, dh].
        key: [N, dh].
        value: [N, dh].

    Returns:
        Cotangents of query [Q, R, dh], key [N, R, dh] and value [N, R, dh].
    """
    weights = jax.nn.softmax(query @ key.T, axis=-1)
    output = weights @ value
    # P[i, :, j] = A_ij (v_j - o_i)
    spread = weights[:, None, :] * (value.T[None] - output[:, :, None])
    of_logits = jnp.einsum("ire,iej->irj", cotangent, spread)
    if key.shape[0] > key.shape[1]:
        of_query = jnp.einsum("ire,ief->irf", cotangent, jnp.einsum("iej,jf->ief", spread, key))
    else:
        of_query = jnp.einsum("irj,je->ire", of_logits, key)
    of_key = jnp.einsum("irj,ie->jre", of_logits, query)
    of_value = jnp.einsum("ij,ire->jre", weights, cotangent)
    return of_query, of_key, of_value
