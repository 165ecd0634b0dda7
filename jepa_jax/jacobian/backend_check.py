"""Does the installed backend compute pullbacks right? Checked against NumPy float64 before first use.

jax/jaxlib 0.10.2 silently miscompiles ``A * (x - (A * x).sum(-1, keepdims=True))`` on x86 CPUs where A
is broadcast over a leading axis of x: the pullback of softmax over a block of Jacobian rows (jax issue
39103). Every score would be wrong, and nothing would say so.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.errors import BackendError
from jepa_jax.jacobian.generic import reverse_jacobian


@dataclass(frozen=True)
class Check:
    """One comparison with NumPy float64.

    Attributes:
        name: what was computed.
        error: largest absolute error over the largest absolute value.
        tolerance: what float32 rounding explains.
    """

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether rounding explains the error; a NaN does not pass."""
        return bool(self.error <= self.tolerance)


def check_backend() -> list[Check]:
    """Run every check on the default backend."""
    return [_softmax_pullback(), _attention_jacobian()]


@functools.cache
def _failed_checks(backend: str) -> tuple[Check, ...]:
    del backend  # the key of the cache
    with jax.ensure_compile_time_eval():
        return tuple(check for check in check_backend() if not check.passed)


def require_sound_backend() -> None:
    """Refuse a backend that fails; the checks run once per process and backend."""
    failed = _failed_checks(jax.default_backend())
    if failed:
        details = "; ".join(f"{c.name}: relative error {c.error:.1e} > {c.tolerance:.0e}" for c in failed)
        raise BackendError(
            f"the {jax.default_backend()} backend of jax {jax.__version__} computes wrong numbers ({details}). "
            "Install another version (pip install 'jax!=0.10.2'); `jepa-jax doctor` tells more."
        )


# Sums of at most 65 products of numbers near 1: float32 rounding stays below 65 * 6e-8 = 4e-6. A miscompiled
# pullback is wrong in the first digit.
_TOLERANCE = 1e-5


def _softmax_pullback() -> Check:
    rng = np.random.default_rng(0)
    # 0.10.2 is right for small arrays and wrong from about 100,000 elements on: this has four times as many.
    rows, heads, tokens = 16, 6, 65
    attention = rng.random((heads, tokens, tokens))
    attention /= attention.sum(-1, keepdims=True)
    cotangents = rng.standard_normal((rows, heads, tokens, tokens))

    def pullback(a, x):
        return a * (x - (a * x).sum(-1, keepdims=True))

    found = jax.jit(pullback)(jnp.asarray(attention, jnp.float32), jnp.asarray(cotangents, jnp.float32))
    return _compare("softmax pullback over a block of rows", found, pullback(attention, cotangents))


def _attention_jacobian() -> Check:
    rng = np.random.default_rng(1)
    tokens, width = 5, 8
    weights = rng.standard_normal((3, width, width)) / np.sqrt(width)
    x = rng.standard_normal((tokens, width))

    def attend(x, w):
        q, k, v = x @ w[0], x @ w[1], x @ w[2]
        return (jax.nn.softmax(q @ k.T, axis=-1) @ v)[0]

    with jax.default_matmul_precision("highest"):
        found = jax.jit(lambda x, w: reverse_jacobian(lambda y: attend(y, w), x, 4))(
            jnp.asarray(x, jnp.float32), jnp.asarray(weights, jnp.float32)
        )
    return _compare("Jacobian of an attention layer", found, _attention_jacobian_numpy(x, weights))


def _attention_jacobian_numpy(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """d out[k] / d x[n, c] for the first token's attention output, written out by hand."""
    q, k, v = x[0] @ w[0], x @ w[1], x @ w[2]
    logits = k @ q
    a = np.exp(logits - logits.max())
    a /= a.sum()
    softmax_slope = np.diag(a) - np.outer(a, a)
    jacobian = np.einsum("n,ck->knc", a, w[2])  # through the values
    by_logit = v.T @ softmax_slope  # [K, n]
    jacobian += np.einsum("kn,cd,d->knc", by_logit, w[1], q)  # through the keys
    jacobian[:, 0] += np.einsum("kn,nd,cd->kc", by_logit, k, w[0])  # through the first token's query
    return jacobian


def _compare(name: str, found: jax.Array, expected: np.ndarray) -> Check:
    error = np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()
    return Check(name, float(error), _TOLERANCE)
