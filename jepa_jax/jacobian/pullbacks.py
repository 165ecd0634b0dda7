"""Pullbacks of a transformer's layers for many rows at once: the exact rules that undercut one `jax.vjp` per row.

A cotangent is an array [tokens, width, rows]: one row of the Jacobian per entry of the last axis, so that a
kernel is applied from the left, heads are runs of memory, and every product is a plain one.
All rows share the forward pass, so what depends on the token alone is worked out once:

* **The MLP is one matrix per token.** Its pullback is c -> (W1 diag(slope) W2) c, a d x d matrix.
  Building it costs 8 d^3 (for an MLP four times as wide), applying it to K rows 2 K d^2, against
  16 K d^2 layer by layer: 10 against 16 at K = d. LayerScale, LayerNorm and their gains are folded in.
* **LayerNorm is a rank-one update.** v -> (v - mean(v) - x (x . v) / d) / std, where x is the normalised
  token; the gain and the mean are constant matrices and go into the weights once.
* **Attention needs no N x N product for queries.** With P_i = A_i (V - O_i), [N, dh] per head and query,
  the logits' cotangent is P_i dO_i (the softmax's own sum is in it), and the query's is
  (K^T P_i) dO_i: one dh x dh covariance matrix.

The formulas hold for any family of `jepa_jax.encoders.vit.ViT`. Tests compare each with `jax.vjp`.
Products with rows in them, and the MLP's matrix, are taken by the caller's ``einsum``, which sets their precision.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jepa_jax.jacobian.precision import Einsum


def centered(kernel: jax.Array) -> jax.Array:
    """Subtract each column's mean: the part of LayerNorm's pullback that is the same for every token."""
    return kernel - jnp.mean(kernel, axis=0, keepdims=True)


def layer_norm(cotangent: jax.Array, normalized: jax.Array, inverse_std: jax.Array) -> jax.Array:
    """Pull back through x -> (x - mean) / std, given cotangents that are `centered` already.

    Args:
        cotangent: [d, R], times the gain, with zero mean.
        normalized: the normalised token, [d].
        inverse_std: 1 / sqrt(variance + eps), a scalar.
    """
    along = normalized @ cotangent / normalized.shape[-1]
    return (cotangent - normalized[:, None] * along) * inverse_std


def mlp(
    einsum: Einsum,
    cotangent: jax.Array,
    slopes: jax.Array,
    outward: jax.Array,
    inward: jax.Array,
    normalized: jax.Array,
    inverse_std: jax.Array,
) -> jax.Array:
    """Pull rows back through LayerNorm, MLP and LayerScale of one token; the residual is not added.

    Args:
        einsum: takes the products.
        cotangent: [d, R].
        slopes: derivative of the hidden units' outputs by each of their inputs, [h] or, for gated
            units, both halves, [2h].
        outward: the way back from outputs to hidden units: W2 with LayerScale, [h or 2h, d].
        inward: from hidden units to normalised tokens: W1 with the gain, centered, [d, h or 2h].
        normalized: the normalised token, [d].
        inverse_std: its 1 / std.

    Returns:
        [d, R].
    """
    width, rows = cotangent.shape
    hidden = slopes.shape[-1]
    folded = width * hidden + rows * width  # products of the two ways, by width
    unfolded = 2 * rows * hidden
    if folded < unfolded:
        matrix = einsum("dh,he->de", inward, slopes[:, None] * outward)
        return einsum("de,er->dr", layer_norm(matrix, normalized, inverse_std), cotangent)
    of_hidden = slopes[:, None] * einsum("hd,dr->hr", outward, cotangent)
    return layer_norm(einsum("dh,hr->dr", inward, of_hidden), normalized, inverse_std)


def attention(
    einsum: Einsum,
    cotangent: jax.Array,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pull rows back through one head: softmax(q k^T) v, with the scale already in the query.

    Args:
        einsum: takes the products.
        cotangent: of the head's outputs, [Q, dh, R]; Q queries may be fewer than N keys.
        query: [Q, dh].
        key: [N, dh].
        value: [N, dh].

    Returns:
        Cotangents of query [Q, dh, R], key **[dh, N, R]** and value [N, dh, R]. The key's comes as its product
        leaves it: that product then is a plain matrix product, twice as fast as with tokens first.
    """
    weights = jax.nn.softmax(query @ key.T, axis=-1)
    output = weights @ value
    # P[i, j] = A_ij (v_j - o_i)
    spread = weights[:, :, None] * (value[None] - output[:, None])
    of_logits = einsum("ije,ier->ijr", spread, cotangent)
    if key.shape[0] > key.shape[1]:
        of_query = einsum("ife,ier->ifr", einsum("jf,ije->ife", key, spread), cotangent)
    else:
        of_query = einsum("jf,ijr->ifr", key, of_logits)
    of_key = einsum("ie,ijr->ejr", query, of_logits)
    of_value = einsum("ij,ier->jer", weights, cotangent)
    return of_query, of_key, of_value
