"""The heads' own part of attention, o_i = sum_j A_ij v_j with A = softmax(q k^T), and the kernels around it.

With P_ij = A_ij (v_j - o_i), a dh-vector for each pair of tokens, the cotangent of the logits of a row with cotangent
c_i at o_i is P_ij . c_i (the softmax's own sum is in it), and

    dq_i = (sum_j k_j P_ij^T) c_i         one dh x dh covariance matrix for each query: no N x N product,
    dk_j = sum_i q_i (P_ij . c_i),
    dv_j = sum_i A_ij c_i.

It is stated in two orders, for the two schedules, which differ in how cotangents lie in memory. `HeadByHead` cuts them
where each head is a run of memory, so that its products are plain ones, and turns nothing whole. `AllHeads` keeps rows
before widths, as all other cotangents are, so that nothing has to be cut or joined at all. Of many tokens either goes
through its queries in blocks (`jepa_jax.layers.query_blocks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jepa_jax.layers import attention_gpu, attention_tpu
from jepa_jax.layers.layer_norm import NormResiduals, added, pullback_folded, pullback_folded_turned
from jepa_jax.layers.query_blocks import through_queries
from jepa_jax.layers.rotation import Rotation, of_parts, rotate_back
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.products import Products


class AttentionResiduals(NamedTuple):
    """Queries (scaled), keys and values, [H, N, dh] each; of one head [N, dh]."""

    query: jax.Array
    key: jax.Array
    value: jax.Array


class AttentionKernels(NamedTuple):
    """The kernels of the way back, constants folded in.

    Attributes:
        outward: [d, d], from the layer's outputs to the heads'.
        inward: [d, 3d], from queries, values and keys to the layer's inputs.
        scale: what is missing in the two, see `Products.kernel`.
    """

    outward: jax.Array
    inward: jax.Array
    scale: jax.Array | None


class Joined(NamedTuple):
    """Cotangents of query, value and key in one array, in the order in which the platform's `Kernel` writes them."""

    array: jax.Array


class Heads(Protocol):
    """A pullback of all heads, in an order of its own between its three parts."""

    def from_outputs(self, kernel: jax.Array, cotangent: jax.Array, heads: int, products: Products) -> Any:
        """Through the output projection of any number of tokens, [..., R, d], to the heads' outputs."""
        ...

    def pullback(self, residuals: AttentionResiduals, outputs: Any, products: Products) -> tuple[Any, ...]:
        """From A outputs to A queries, N values, and N keys (see `Schedule.over_tokens`); or to `Joined` alone."""
        ...

    def to_inputs(
        self,
        kernels: AttentionKernels,
        parts: Sequence[Any],
        norm: NormResiduals | None,
        rotation: Rotation | None,
        products: Products,
        onto: jax.Array | None = None,
    ) -> jax.Array:
        """Through the input projection of any number of tokens, and the norm before it, to [..., R, d].

        Args:
            kernels: of the layer.
            parts: cotangents of query, value and key; of query alone; of value and key; or `Joined` alone.
            norm: what is left of a norm whose gain is in the kernel.
            rotation: by what these tokens' queries and keys were turned; their cotangents are turned back.
            products: takes the products.
            onto: what the result is added to, see `jepa_jax.layers.layer_norm.pullback_folded`.
        """
        ...


def used_columns(count: int, width: int) -> slice:
    """Of the kernel `AttentionKernels.inward`, those of so many parts."""
    return {1: slice(None, width), 2: slice(width, None), 3: slice(None)}[count]


class HeadByHead:
    """One head after the other. Between the kernels, cotangents are [tokens, width, rows], cut at their widths."""

    def from_outputs(self, kernel: jax.Array, cotangent: jax.Array, heads: int, products: Products) -> list[jax.Array]:
        """See `Heads`: one array [..., dh, R] a head."""
        return jnp.split(products("de,...re->...dr", kernel, cotangent), heads, axis=-2)

    def pullback(
        self, residuals: AttentionResiduals, outputs: list[jax.Array], products: Products
    ) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
        """See `Heads`: [A, dh, R], [N, dh, R] and, of keys, [dh, N, R]."""
        results: list[tuple[jax.Array, ...]] = []
        for head, cotangent in enumerate(outputs):
            of_head = AttentionResiduals(*(leaf[head] for leaf in residuals))
            if results:
                # One head after the other, by a dependency that XLA cannot drop (it drops barriers on CPUs): side by
                # side, each head would hold its own logits' cotangents, [tokens, tokens, rows].
                after = 0.0 * results[-1][-1][0, 0, 0]
                of_head = AttentionResiduals(*(leaf + after for leaf in of_head))
            results.append(pullback_head(products, cotangent, of_head))
        query, value, key = (list(part) for part in zip(*results, strict=True))
        return query, value, key

    def to_inputs(
        self,
        kernels: AttentionKernels,
        parts: Sequence[list[jax.Array]],
        norm: NormResiduals | None,
        rotation: Rotation | None,
        products: Products,
        onto: jax.Array | None = None,
    ) -> jax.Array:
        """See `Heads`. The result is turned with the norm's update, not by itself."""
        joined = jnp.concatenate([head for part in parts for head in part], axis=-2)
        if rotation is not None:
            each = joined.reshape(*joined.shape[:-2], len(parts), len(parts[0]), -1, joined.shape[-1])
            turns = Rotation(*(turn[..., None, :, None] for turn in of_parts(rotation, len(parts), axis=-2)))
            joined = rotate_back(products, each, turns, axis=-2).reshape(joined.shape)
        used = used_columns(len(parts), kernels.outward.shape[0])
        pulled = products("de,...er->...dr", kernels.inward[:, used], joined)
        turned = pullback_folded_turned(norm, pulled, products, kernels.scale)
        return added(products, onto, jnp.swapaxes(turned, -1, -2))


def pullback_head(
    products: Products, cotangent: jax.Array, residuals: AttentionResiduals
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pull rows back through one head.

    Args:
        products: takes the products.
        cotangent: of the head's outputs, [A, dh, R].
        residuals: query, key and value, [N, dh]; A may be fewer than N.

    Returns:
        Cotangents of query [A, dh, R], value [N, dh, R] and key [dh, N, R]: these as their product leaves them, which
        then is a plain one, twice as fast on a CPU as with tokens in front.
    """
    _, key, value = residuals

    def rule(taken: Any, query: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        weights = jax.nn.softmax(query @ key.T, axis=-1)
        output = weights @ value
        spread = weights[:, :, None] * (value[None] - output[:, None])  # P
        of_logits = products("ije,ier->ijr", spread, cotangent)
        if key.shape[0] > key.shape[1]:
            of_query = taken("ife,ier->ifr", products("jf,ije->ife", key, spread), cotangent)
        else:
            of_query = taken("jf,ijr->ifr", key, of_logits)
        of_key = taken("if,ijr->fjr", query, of_logits)
        of_value = taken("ij,ier->jer", weights, cotangent)
        return of_query, of_value, of_key

    return through_queries(rule, products, residuals.query[: cotangent.shape[0]], cotangent, len(key))


class AllHeads:
    """All heads at once, or a kernel written for the platform. Cotangents are [..., R, H, dh] between the kernels."""

    def from_outputs(self, kernel: jax.Array, cotangent: jax.Array, heads: int, products: Products) -> jax.Array:
        """See `Heads`."""
        pulled = products("...re,de->...rd", cotangent, kernel)
        return pulled.reshape(*pulled.shape[:-1], heads, -1)

    def pullback(
        self, residuals: AttentionResiduals, outputs: jax.Array, products: Products
    ) -> tuple[jax.Array, jax.Array, jax.Array] | tuple[Joined]:
        """See `Heads`."""
        kernel = kernel_for(products, outputs.shape[0], residuals.key.shape)
        if kernel is None:
            return pullback_heads(products, outputs, residuals)
        return (Joined(kernel.pullback_heads(products, outputs, residuals)),)

    def to_inputs(
        self,
        kernels: AttentionKernels,
        parts: Sequence[jax.Array | Joined],
        norm: NormResiduals | None,
        rotation: Rotation | None,
        products: Products,
        onto: jax.Array | None = None,
    ) -> jax.Array:
        """See `Heads`. One product a part, added up: to join the parts would copy them."""
        width = kernels.outward.shape[0]
        apart = [part for part in parts if not isinstance(part, Joined)]
        if len(apart) < len(parts):
            (whole,) = parts
            assert isinstance(whole, Joined)
            kernel, array = KERNELS[products.platform], whole.array
            if rotation is not None:
                array = kernel.rotate_back(products, array, rotation)
            pulled = kernel.to_inputs(kernels.inward, array, products)
            return pullback_folded(norm, pulled, products, kernels.scale, onto)
        columns = jnp.split(kernels.inward[:, used_columns(len(parts), width)], len(parts), axis=1)
        if rotation is not None:
            turns = Rotation(*(turn[..., None, None, :] for turn in rotation))
            apart = [
                part if number == len(apart) - 2 else rotate_back(products, part, turns)  # values stand still
                for number, part in enumerate(apart)
            ]
        flat = (part.reshape(*part.shape[:-2], width) for part in apart)
        pulled = (products("...re,de->...rd", *pair) for pair in zip(flat, columns, strict=True))
        total = next(pulled)
        for other in pulled:
            total = products.stored(total + other)
        return pullback_folded(norm, total, products, kernels.scale, onto)


def pullback_heads(
    products: Products, cotangent: jax.Array, residuals: AttentionResiduals
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pull rows back through all heads, [A, R, H, dh], to query [A, R, H, dh], value and key, [N, R, H, dh] each."""
    _, key, value = residuals

    def rule(taken: Any, query: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        weights = jax.nn.softmax(query @ jnp.swapaxes(key, -1, -2), axis=-1)
        output = weights @ value
        spread = weights[..., None] * (value[:, None] - output[:, :, None])  # P, [H, A, N, dh]
        of_logits = products("irhe,hije->hijr", cotangent, spread)
        if key.shape[1] > key.shape[2]:
            covariance = products("hjf,hije->hife", key, spread)
            of_query = taken("irhe,hife->irhf", cotangent, covariance)
        else:
            of_query = taken("hijr,hjf->irhf", of_logits, key)
        of_value = taken("hij,irhe->jrhe", weights, cotangent)
        of_key = taken("hijr,hif->jrhf", of_logits, query)
        return of_query, of_value, of_key

    query = residuals.query[:, : cotangent.shape[0]]
    return through_queries(rule, products, query, cotangent, key.shape[1], axis=1)


class Kernel(Protocol):
    """What takes the place of `pullback_heads` on a platform: a program written for it, in a module of its own."""

    ALIVE: int
    """Arrays of the size of the layer's cotangents that exist beside each other; the logits stay on the chip."""

    def fits(self, products: Products, queries: int, keys: tuple[int, ...], /) -> bool:
        """Whether the program is for this level, so many queries, and keys of this shape, [H, N, dh]."""
        ...

    def pullback_heads(self, products: Products, cotangent: jax.Array, residuals: AttentionResiduals, /) -> jax.Array:
        """From A = N outputs to the array of `Joined`."""
        ...

    def rotate_back(self, products: Products, joined: jax.Array, rotation: Rotation, /) -> jax.Array:
        """Cotangents of the turned to those of query and key, in the array of `Joined`."""
        ...

    def to_inputs(self, inward: jax.Array, joined: jax.Array, products: Products, /) -> jax.Array:
        """From the array of `Joined` through the input projection [d, 3d], to [N, R, d]."""
        ...


KERNELS: dict[Platform, Kernel] = {"gpu": attention_gpu, "tpu": attention_tpu}


def kernel_for(products: Products, queries: int, keys: tuple[int, ...]) -> Kernel | None:
    """The platform's program for so many queries and keys [H, N, dh], if there is one and it may be used."""
    kernel = KERNELS.get(products.platform) if products.kernels == "auto" else None
    return kernel if kernel is not None and kernel.fits(products, queries, keys) else None
