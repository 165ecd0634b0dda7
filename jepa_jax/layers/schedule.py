"""How many tokens and heads one step of a pullback sees: one at a time, or all. The rules are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp

from jepa_jax.errors import ArgumentError

ScheduleName = Literal["looped", "batched"]

Heads = Any
"""A cotangent cut into heads, as a schedule keeps it between two rules."""


class Schedule(Protocol):
    """The way through tokens and heads.

    Between the kernels around them, heads are runs of the *second* axis from behind, [tokens, width, rows]: cut there,
    each is a run of memory, and the products of attention are plain ones.
    """

    def over_tokens(self, rule: Callable[..., Any], *arrays: Any, keys: Heads | None = None) -> Any:
        """Apply a rule for any number of tokens.

        Args:
            rule: of the arrays, and of the keys last if there are any.
            arrays: with the tokens in front.
            keys: cotangents of keys as `over_heads` has them; the rule gets them as it gets other heads.
        """
        ...

    def at_once(self, count: int) -> int:
        """How many of so many tokens, or heads, a step sees."""
        ...

    def split(self, cotangent: jax.Array, heads: int) -> Heads:
        """Cut [..., d, R] into heads."""
        ...

    def join(self, parts: Sequence[Heads]) -> jax.Array:
        """The heads of several parts one after the other, [..., sum of widths, R]: query, key, value for instance."""
        ...

    def over_heads(self, rule: Callable[..., Any], residuals: Any, cotangents: Heads) -> tuple[Heads, Heads, Heads]:
        """Apply a rule for one head to each.

        Args:
            rule: from residuals and a cotangent [A, dh, R] to cotangents of query [A, dh, R], key **[dh, N, R]** and
                value [N, dh, R]. The key's are as their product leaves them, which then is a plain one, twice as fast
                on a CPU as with tokens in front.
            residuals: arrays with the heads in front.
            cotangents: what `split` made, with the tokens in front.
        """
        ...


@dataclass(frozen=True)
class Looped:
    """A token at a time and a head at a time: what a step works on stays in a processor's caches."""

    def over_tokens(self, rule: Callable[..., Any], *arrays: Any, keys: Heads | None = None) -> Any:
        """See `Schedule`. Keys are taken by the token's number: to turn them would copy them."""
        if keys is None:
            return jax.lax.map(lambda token: rule(*token), arrays)

        def with_keys(token: tuple[jax.Array, tuple[Any, ...]]) -> Any:
            number, values = token
            of_token = [jax.lax.dynamic_index_in_dim(head, number, axis=1, keepdims=False) for head in keys]
            return rule(*values, of_token)

        return jax.lax.map(with_keys, (jnp.arange(keys[0].shape[1]), arrays))

    def at_once(self, count: int) -> int:
        """See `Schedule`."""
        return min(count, 1)

    def split(self, cotangent: jax.Array, heads: int) -> Heads:
        """One array a head: they are cut and joined a token at a time, in the caches, and never transposed whole."""
        return jnp.split(cotangent, heads, axis=-2)

    def join(self, parts: Sequence[Heads]) -> jax.Array:
        """See `Schedule`."""
        return jnp.concatenate([head for part in parts for head in part], axis=-2)

    def over_heads(self, rule: Callable[..., Any], residuals: Any, cotangents: Heads) -> tuple[Heads, Heads, Heads]:
        """See `Schedule`."""
        results: list[tuple[jax.Array, ...]] = []
        for head, cotangent in enumerate(cotangents):
            of_head = jax.tree.map(lambda leaf, head=head: leaf[head], residuals)
            if results:
                # One head after the other, by a dependency that XLA cannot drop (it drops barriers on CPUs): side by
                # side, each head would hold its own logits' cotangents, [tokens, tokens, rows].
                after = 0.0 * results[-1][-1][0, 0, 0]
                of_head = jax.tree.map(lambda leaf, after=after: leaf + after, of_head)
            results.append(rule(of_head, cotangent))
        query, key, value = (list(part) for part in zip(*results, strict=True))
        return query, key, value


@dataclass(frozen=True)
class Batched:
    """All tokens and heads in one product: what fills an accelerator."""

    def over_tokens(self, rule: Callable[..., Any], *arrays: Any, keys: Heads | None = None) -> Any:
        """See `Schedule`."""
        return rule(*arrays) if keys is None else rule(*arrays, keys.transpose(2, 1, 0, 3))

    def at_once(self, count: int) -> int:
        """See `Schedule`."""
        return count

    def split(self, cotangent: jax.Array, heads: int) -> Heads:
        """[..., heads, dh, R]: nothing moves."""
        return cotangent.reshape(*cotangent.shape[:-2], heads, -1, cotangent.shape[-1])

    def join(self, parts: Sequence[Heads]) -> jax.Array:
        """See `Schedule`."""
        return jnp.concatenate([part.reshape(*part.shape[:-3], -1, part.shape[-1]) for part in parts], axis=-2)

    def over_heads(self, rule: Callable[..., Any], residuals: Any, cotangents: Heads) -> tuple[Heads, Heads, Heads]:
        """See `Schedule`; keys are [dh, heads, N, R]."""
        return jax.vmap(rule, in_axes=(0, 1), out_axes=1)(residuals, cotangents)


SCHEDULES: dict[ScheduleName, Schedule] = {"looped": Looped(), "batched": Batched()}


def check_schedule(name: str) -> None:
    """Refuse an unknown schedule."""
    if name not in get_args(ScheduleName):
        raise ArgumentError(f"schedule={name!r} is unknown; use 'auto', {', '.join(map(repr, SCHEDULES))}.")
