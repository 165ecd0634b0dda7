"""How many tokens and heads one step of a pullback sees: one at a time, or all. The rules are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp

from jepa_jax.errors import ArgumentError

ScheduleName = Literal["looped", "batched"]


class Schedule(Protocol):
    """The way through tokens, heads and blocks."""

    @property
    def loops(self) -> bool:
        """Whether it goes through them one at a time."""
        ...

    def over_tokens(self, rule: Callable[..., Any], *arrays: Any, keys: Any = None) -> Any:
        """Apply a rule for any number of tokens.

        Args:
            rule: of the arrays, and of the keys last if there are any.
            arrays: with the tokens in front.
            keys: cotangents of keys as `jepa_jax.layers.heads` leaves them, or of all parts in one; the rule gets them
                as it gets other heads.
        """
        ...

    def at_once(self, count: int) -> int:
        """Of so many tokens or heads, how many one step works on."""
        ...


@dataclass(frozen=True)
class Looped:
    """A token at a time and a head at a time: what a step works on stays in a processor's caches."""

    loops = True

    def over_tokens(self, rule: Callable[..., Any], *arrays: Any, keys: Any = None) -> Any:
        """See `Schedule`. Keys, each [dh, N, R], are taken by the token's number: to turn them would copy them."""
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


@dataclass(frozen=True)
class Batched:
    """All tokens and heads in one product, and a program for each block: what fills an accelerator."""

    loops = False

    def over_tokens(self, rule: Callable[..., Any], *arrays: Any, keys: Any = None) -> Any:
        """See `Schedule`."""
        return rule(*arrays) if keys is None else rule(*arrays, keys)

    def at_once(self, count: int) -> int:
        """See `Schedule`."""
        return count


SCHEDULES: dict[ScheduleName, Schedule] = {"looped": Looped(), "batched": Batched()}


def check_schedule(name: str) -> None:
    """Refuse an unknown schedule."""
    if name not in get_args(ScheduleName):
        raise ArgumentError(f"schedule={name!r} is unknown; use 'auto', {', '.join(map(repr, SCHEDULES))}.")
