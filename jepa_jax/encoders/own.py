"""An encoder of the user's own: a function of parameters and a batch, and what is known of its output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jepa_jax.errors import ArgumentError


@dataclass(frozen=True, eq=False, repr=False)
class OwnEncoder:
    """An encoder of any library, for `jepa_jax.score` and its kin; docs/own-encoders.md has one of each.

    A function without parameters can be scored as it is. This says more: parameters become arguments of the compiled
    program instead of constants in it (which take long to compile and lie in memory twice), so that they may change
    without compiling anew; and directions that the output cannot move in are left out of the score.

    Attributes:
        fn: ``(params, batch [B, *input]) -> [B, K]``, treating examples independently. It is compiled once per object
            and shape: make it once, and keep it.
        params: a tree of arrays. At ``precision="float64"`` floating-point ones are widened; others stay.
        null_directions: ``(params, embedding [K]) -> [K, m]``: directions that the output cannot move in, by the
            encoder's construction; independent, the first one exactly null. An output behind a LayerNorm has two
            (`jepa_jax.layer_norm_null_directions`), one that is divided by its length has itself. By default none. One
            that is left in is rounding noise in the score, and shows as a large ``score_error``; so does one that is
            not null.
        gaussian: whether it was trained to embeddings distributed as N(0, I), so that ``gaussian_score`` applies.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import jepa_jax as jj
        >>> params = {"kernel": np.eye(5, 3, dtype=np.float32)}
        >>> own = jj.OwnEncoder(lambda params, x: jnp.tanh(x @ params["kernel"]), params)
        >>> jj.score(own, np.ones((2, 5), np.float32)).score.shape
        (2,)
    """

    fn: Callable[[Any, jax.Array], jax.Array]
    params: Any = ()
    null_directions: Callable[[Any, jax.Array], jax.Array] | None = None
    gaussian: bool = False

    def __post_init__(self):
        for name in ("fn", "null_directions"):
            value = getattr(self, name)
            if not callable(value) and (name == "fn" or value is not None):
                raise ArgumentError(f"{name} is of type {type(value).__name__}; it must be a function.")
        for leaf in jax.tree.leaves(self.params):
            if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
                raise ArgumentError(
                    f"params holds {str(leaf)[:80]}, a {type(leaf).__name__}, and must be a tree of arrays; keep what "
                    "is none in fn (Equinox: eqx.partition(model, eqx.is_array); Flax nnx: nnx.split(model))."
                )

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self.params)
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        return f"OwnEncoder({name}, {len(leaves)} arrays, {sum(leaf.size for leaf in leaves):,} values)"

    def __call__(self, batch: jax.Array) -> jax.Array:
        """Embed a batch [B, *input] as [B, K]."""
        return self.fn(self.params, batch)
