"""Does the installed backend compute pullbacks right? Checked against NumPy float64 before first use.

jax/jaxlib 0.10.2 silently miscompiles ``A * (x - (A * x).sum(-1, keepdims=True))`` on x86 CPUs where A
is broadcast over a leading axis of x: the pullback of softmax over a block of Jacobian rows (jax issue
39103). Every score would be wrong, and nothing would say so. Nor would a matrix product say that it is coarser than
it was asked to be, or a kernel that it is wrong: so the layers' own pullbacks are checked too, by the products, the
schedule and the kernels that are about to be used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jepa_jax.encoders.specs import ViTSpec
from jepa_jax.errors import BackendError
from jepa_jax.jacobian.generic import reverse_jacobian
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.layers import MLP, Attention, Block, LayerNorm
from jepa_jax.layers.heads import kernel_for
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import LEVELS, NOISE, levels_from, working_dtype


@dataclass(frozen=True)
class Check:
    """One comparison with NumPy float64.

    Attributes:
        name: what was computed.
        error: relative to what was expected.
        tolerance: what rounding explains.
    """

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether rounding explains the error; a NaN does not pass."""
        return bool(self.error <= self.tolerance)


def check_backend(platform: Platform) -> list[Check]:
    """Run every check, at every level of precision that a platform has, on its first device.

    The layers' with the heads of most encoders, and with ViT-H's where a kernel takes them.
    """
    every = [JacobianOptions(precision=level, platform=platform) for level in levels_from(LEVELS[0], platform)]
    with jax.default_device(jax.local_devices(backend=platform)[0]):
        of_layers = [layers_check(options) for options in every]
        of_others = [layers_check(options, _OTHER_WIDTH) for options in every if _has_kernel(options, _OTHER_WIDTH)]
        return [softmax_check(), attention_check(), *of_layers, *of_others]


def require_sound_backend(options: JacobianOptions, vit: ViTSpec | None) -> None:
    """Refuse a backend that fails what is about to be used of it; each check runs once per process and choice.

    Args:
        options: how a Jacobian is to be computed.
        vit: the architecture whose layers' own pullbacks may do the work; None where there is none.
    """
    platform = options.platform
    failed = list(_failed(platform, (softmax_check, attention_check)))
    if options.uses_rules(layered=vit is not None) and vit is not None:
        used = JacobianOptions(
            precision=options.precision, schedule=options.schedule, kernels=options.kernels, platform=platform
        )
        # A kernel for attention is another program for each width of heads.
        failed += _failed_layers(used, vit.head_width if _has_kernel(used, vit.head_width) else _HEAD_WIDTH)
    if failed:
        details = "; ".join(f"{c.name}: relative error {c.error:.1e} > {c.tolerance:.0e}" for c in failed)
        raise BackendError(
            f"the {platform} backend of jax {jax.__version__} computes wrong numbers ({details}). "
            "Install another version (pip install 'jax!=0.10.2'); `jepa-jax doctor` tells more."
        )


@functools.cache
def _failed(platform: Platform, checks: Iterable[Callable[[], Check]]) -> tuple[Check, ...]:
    def run() -> tuple[Check, ...]:
        with jax.default_device(jax.local_devices(backend=platform)[0]):
            return tuple(check for check in (run() for run in checks) if not check.passed)

    # In a thread of its own, because a trace, inside which this may be called, belongs to its thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


@functools.cache
def _failed_layers(options: JacobianOptions, head_width: int) -> tuple[Check, ...]:
    return _failed(options.platform, (functools.partial(layers_check, options, head_width),))


# Sums of at most 65 products of numbers near 1: float32 rounding stays below 65 * 6e-8 = 4e-6. A miscompiled
# pullback is wrong in the first digit.
_TOLERANCE = 1e-5


def softmax_check() -> Check:
    """The pullback of softmax over a block of rows, as JAX writes it."""
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


def attention_check() -> Check:
    """A small Jacobian by JAX's own differentiation."""
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
    softmax_derivative = np.diag(a) - np.outer(a, a)
    jacobian = np.einsum("n,ck->knc", a, w[2])  # through the values
    by_logit = v.T @ softmax_derivative  # [K, n]
    jacobian += np.einsum("kn,cd,d->knc", by_logit, w[1], q)  # through the keys
    jacobian[:, 0] += np.einsum("kn,nd,cd->kc", by_logit, k, w[0])  # through the first token's query
    return jacobian


def _compare(name: str, found: jax.Array, expected: np.ndarray) -> Check:
    error = np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()
    return Check(name, float(error), _TOLERANCE)


# Of the pullback of one block: so many tokens and rows that what a backend does with large arrays is seen, two tiles
# of tokens and some, heads as wide as those of most published encoders, or as ViT-H's, and rows enough for the MLP to
# be folded.
_TOKENS, _ROWS, _HEAD_WIDTH, _OTHER_WIDTH = 129, 96, 64, 80
_EPSILON = 1e-6

_COLUMNS = 128
"""What the block's width is a multiple of, so that kernels for attention and for products are used."""

# One block's error is about the noise that is typical of a whole encoder (0.8 to 1.3 times below float32, whatever the
# width of its heads; at float32 and float64 up to 2.4 times with heads of 64). The levels lie a factor of eight and
# more apart: three times the noise refuses what is really the next coarser one.
_NOISE_MARGIN = 3.0

_OF_NUMPY = 1e-13
"""NumPy's own rounding in the reference: some hundred units of float64."""


def layers_check(options: JacobianOptions, head_width: int = _HEAD_WIDTH) -> Check:
    """The pullback of a transformer block by the layers' own rules, along a few directions of its input.

    NumPy's derivative is a complex step: f(x + i h v) has the derivative along v as its imaginary part over h, exact
    to the last digit, without a pullback of any kind.
    """
    dtype, heads = working_dtype(options.precision), _heads(head_width)
    width = heads * head_width
    graph, state = nnx.split(nnx.eval_shape(functools.partial(_block, width, heads)))
    rng = np.random.default_rng(2)
    values = jax.tree.map(functools.partial(_draw, rng), state)
    x, cotangent = rng.standard_normal((_TOKENS, width)), rng.standard_normal((_TOKENS, _ROWS, width))
    directions = rng.standard_normal((4, _TOKENS, width))

    def pullback(state: Any, x: jax.Array, cotangent: jax.Array) -> jax.Array:
        block = nnx.merge(graph, state)
        _, residuals = block.linearize(x)
        products = options.products
        kernels = block.prepare(products)
        return block.pullback(kernels, residuals, products.stored(cotangent), products, options.chosen_schedule)

    with float64_scope(options.precision == "float64"), jax.default_matmul_precision("highest"):
        arguments = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (values, x, cotangent))
        pulled = np.asarray(jax.jit(pullback)(*arguments), np.float64)
    # What passes by on the residual connection is exact, and would only dilute the error of the rest.
    found = np.einsum("trd,vtd->vr", pulled - cotangent, directions)
    step = 1e-30
    moved = np.stack([_block_numpy(nnx.to_pure_dict(values), heads, x + 1j * step * v) for v in directions])
    expected = np.einsum("trd,vtd->vr", cotangent, np.imag(moved) / step - directions)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    tolerance = max(_NOISE_MARGIN * NOISE[options.precision], _OF_NUMPY)
    heads_of = "" if head_width == _HEAD_WIDTH else f", heads of {head_width}"
    return Check(f"pullback of a transformer block in {options.precision}{heads_of}", float(error), tolerance)


def _heads(head_width: int) -> int:
    """How many heads the block has: two or more."""
    return max(2, _COLUMNS // math.gcd(_COLUMNS, head_width))


def _has_kernel(options: JacobianOptions, head_width: int) -> bool:
    """Whether the block's attention goes by a program that was written for the platform."""
    keys = _heads(head_width), _TOKENS, head_width
    return not options.chosen_schedule.loops and kernel_for(options.products, _TOKENS, keys) is not None


def _draw(rng: np.random.Generator, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Kernels that keep the size of what passes; gains and biases of every size around one."""
    if len(leaf.shape) == 1:
        return rng.uniform(0.5, 1.5, leaf.shape)
    return rng.standard_normal(leaf.shape) / np.sqrt(leaf.shape[0])


def _block(width: int, heads: int) -> Block:
    norms = LayerNorm(width, _EPSILON), LayerNorm(width, _EPSILON)
    attention, mlp = Attention(width, heads, nnx.Rngs(0)), MLP(width, 2 * width, "quick_gelu", nnx.Rngs(0))
    return Block(norms, attention, mlp, layer_scale=True)


def _block_numpy(params: dict[str, Any], heads: int, x: np.ndarray) -> np.ndarray:
    """The block in NumPy, analytic in x, so that a complex x passes through: [N, d] -> [N, d]."""

    def norm(x: np.ndarray, of: dict[str, Any]) -> np.ndarray:
        deviation = x - x.mean(-1, keepdims=True)
        return deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + _EPSILON) * of["scale"] + of["bias"]

    def linear(x: np.ndarray, of: dict[str, Any]) -> np.ndarray:
        return x @ of["kernel"] + of["bias"]

    of = params["attention"]
    qkv = linear(norm(x, params["norm1"]), of["qkv"]).reshape(len(x), 3, heads, -1)
    query, key, value = qkv.transpose(1, 2, 0, 3)
    weights = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(x.shape[1] // heads))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ value
    x = x + linear(mixed.transpose(1, 0, 2).reshape(x.shape), of["out"]) * params["layer_scale1"]
    hidden = linear(norm(x, params["norm2"]), params["mlp"]["fc1"])
    return x + linear(hidden / (1 + np.exp(-1.702 * hidden)), params["mlp"]["fc2"]) * params["layer_scale2"]
