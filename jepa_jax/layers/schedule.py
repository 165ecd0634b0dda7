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
    """The way through tokens and heads."""

    def over_tokens(self, rule: Callable[..., Any], *arrays: Any) -> Any:
        """Apply a rule for any number of tokens to arrays that have the tokens in front."""
        ...

    def at_once(self, count: int) -> int:
        """How many of so many tokens, or heads, a step sees."""
        ...

    def split(self, cotangent: jax.Array, heads: int) -> Heads:
        """Cut [..., R, d] into heads."""
        ...

    def join(self, parts: Sequence[Heads]) -> jax.Array:
        """The heads of several parts side by side, [..., R, sum of widths]: query, key and value for instance."""
        ...

    def over_heads(self, rule: Callable[..., Any], residuals: Any, cotangents: Heads) -> tuple[Heads, ...]:
        """Apply ``rule(residuals, cotangent)`` of one head to each.

        Args:
            rule: returns a tuple of arrays [N, R, dh].
            residuals: arrays with the heads in front.
            cotangents: what `split` made, with the tokens in front.

        Returns:
            For each array that the rule returns, its heads.
        """
        ...


@dataclass(frozen=True)
class Looped:
    """A token at a time and a head at a time: what a step works on stays in a processor's caches."""

    def over_tokens(self, rule: Callable[..., Any], *arrays: Any) -> Any:
        """See `Schedule`."""
        return jax.lax.map(lambda token: rule(*token), arrays)

    def at_once(self, count: int) -> int:
        """See `Schedule`."""
        return min(count, 1)

    def split(self, cotangent: jax.Array, heads: int) -> Heads:
        """One array a head: they are cut and joined a token at a time, in the caches, and never transposed whole."""
        return jnp.split(cotangent, heads, axis=-1)

    def join(self, parts: Sequence[Heads]) -> jax.Array:
        """See `Schedule`."""
        return jnp.concatenate([head for part in parts for head in part], axis=-1)

    def over_heads(self, rule: Callable[..., Any], residuals: Any, cotangents: Heads) -> tuple[Heads, ...]:
        """See `Schedule`."""
        results: list[tuple[jax.Array, ...]] = []
        for head, cotangent in enumerate(cotangents):
            of_head = jax.tree.map(lambda leaf, head=head: leaf[head], residuals)
            if results:
                # One head after the other, by a dependency that XLA cannot drop (it drops barriers on CPUs): side by
                # side, each head would hold its own [tokens, rows, tokens].
                after = 0.0 * results[-1][-1][0, 0, 0]
                of_head = jax.tree.map(lambda leaf, after=after: leaf + after, of_head)
            results.append(rule(of_head, cotangent))
        return tuple(list(part) for part in zip(*results, strict=True))


@dataclass(frozen=True)
class Batched:
    """All tokens and heads in one product: what fills an accelerator."""

    def over_tokens(self, rule: Callable[..., Any], *arrays: Any) -> Any:
        """See `Schedule`."""
        return rule(*arrays)

    def at_once(self, count: int) -> int:
        """See `Schedule`."""
        return count

    def split(self, cotangent: jax.Array, heads: int) -> Heads:
        """[..., R, heads, dh]: nothing moves."""
        return cotangent.reshape(*cotangent.shape[:-1], heads, -1)

    def join(self, parts: Sequence[Heads]) -> jax.Array:
        """See `Schedule`."""
        return jnp.concatenate([part.reshape(*part.shape[:-2], -1) for part in parts], axis=-1)

    def over_heads(self, rule: Callable[..., Any], residuals: Any, cotangents: Heads) -> tuple[Heads, ...]:
        """See `Schedule`."""
        return jax.vmap(rule, in_axes=(0, 2), out_axes=2)(residuals, cotangents)


SCHEDULES: dict[ScheduleName, Schedule] = {"looped": Looped(), "batched": Batched()}


def check_schedule(name: str) -> None:
    """Refuse an unknown schedule."""
    if name not in get_args(ScheduleName):
        raise ArgumentError(f"schedule={name!r} is unknown; use 'auto', {', '.join(map(repr, SCHEDULES))}.")
