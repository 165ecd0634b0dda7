"""One law for every layer: its pullback of any number of tokens and rows is that of `jax.vjp`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from makes import change, relative

from jepa_jax.encoders.vit import attention_pool, transformer_block
from jepa_jax.layers import (
    MLP,
    SCHEDULES,
    Attention,
    AxialRotary,
    Block,
    ClassToken,
    L2Normalize,
    LayerNorm,
    MeanPatches,
    PatchEmbedding,
    Positions,
    Projection,
    RotaryAttention,
    Stack,
    SwiGLU,
    TubeletRotary,
)
from jepa_jax.layers.layer import no_null_directions
from jepa_jax.layers.mlp import HiddenLayer
from jepa_jax.layers.schedule import ScheduleName
from jepa_jax.numerics.precision import Precision, working_dtype
from jepa_jax.numerics.products import Products

TOKENS, WIDTH = 7, 12
ODD = change(width=WIDTH, heads=3, mlp_width=20, activation="gelu_tanh")
EXACT = Products("float64", "cpu")

# Float64, and at most some hundred terms in a sum: some tens of rounding units of 1e-16.
TOLERANCE = 1e-13


def blocks(depth: int, **changes: Any) -> list[Block]:
    spec = change(width=WIDTH, depth=depth, mlp_width=20, **changes)
    return [transformer_block(spec, nnx.Rngs(i)) for i in range(depth)]


def positions() -> Positions:
    rng = np.random.default_rng(0)
    prefix, embedding = rng.standard_normal((2, WIDTH)), rng.standard_normal((3, 3, WIDTH))
    return Positions(jnp.asarray(prefix), jnp.asarray(embedding), (1, TOKENS), "bicubic")


# Each with the shape of its input.
LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "layer norm": (lambda: LayerNorm(WIDTH, 1e-6), (TOKENS, WIDTH)),
    "layer norm, large epsilon": (lambda: LayerNorm(WIDTH, 0.5), (TOKENS, WIDTH)),
    "MLP": (lambda: MLP(WIDTH, 20, "gelu", nnx.Rngs(0)), (TOKENS, WIDTH)),
    "MLP, GELU by tanh": (lambda: MLP(WIDTH, 20, "gelu_tanh", nnx.Rngs(0)), (TOKENS, WIDTH)),
    "MLP, quick GELU": (lambda: MLP(WIDTH, 20, "quick_gelu", nnx.Rngs(0)), (TOKENS, WIDTH)),
    "SwiGLU": (lambda: SwiGLU(WIDTH, 20, nnx.Rngs(0)), (TOKENS, WIDTH)),
    "attention": (lambda: Attention(WIDTH, 2, nnx.Rngs(0)), (TOKENS, WIDTH)),
    "attention, one wide head": (lambda: Attention(WIDTH, 1, nnx.Rngs(0), qkv_bias=False), (TOKENS, WIDTH)),
    "rotary attention": (
        lambda: RotaryAttention(WIDTH, 3, nnx.Rngs(0), AxialRotary(1, 100.0), key_bias=False).on((2, 3)),
        (TOKENS, WIDTH),
    ),
    "rotary attention of clips": (
        lambda: RotaryAttention(WIDTH, 1, nnx.Rngs(0), TubeletRotary(10.0)).on((7, 1, 1)),
        (TOKENS, WIDTH),
    ),
    "block": (lambda: blocks(1)[0], (TOKENS, WIDTH)),
    "block without LayerScale, SwiGLU": (
        lambda: blocks(1, layer_scale=False, activation="swiglu")[0],
        (TOKENS, WIDTH),
    ),
    "stack of rotary blocks, SwiGLU": (
        lambda: Stack(
            [
                block.on((3, 2))
                for block in blocks(2, heads=1, rotary_base=9.0, rotary_periods="bfloat16", activation="swiglu")
            ]
        ),
        (TOKENS, WIDTH),
    ),
    "stack of blocks": (lambda: Stack(nnx.List(blocks(3))), (TOKENS, WIDTH)),
    "patches": (lambda: PatchEmbedding(2, WIDTH, nnx.Rngs(0)), (4, 6, 3)),
    "positions": (positions, (TOKENS, WIDTH)),
    "class token": (lambda: ClassToken(1, TOKENS - 1), (TOKENS, WIDTH)),
    "mean over patches": (lambda: MeanPatches(2, TOKENS - 2), (TOKENS, WIDTH)),
    "attention pool": (lambda: attention_pool(ODD, nnx.Rngs(0)), (TOKENS, WIDTH)),
    "projection": (lambda: Projection(WIDTH, 5, nnx.Rngs(0)), (1, WIDTH)),
    "division by the length": (L2Normalize, (1, WIDTH)),
}


def loud(layer: Any) -> Any:
    """Random parameters large enough that every nonlinearity bends and every gain and bias shows."""
    if isinstance(layer, Stack):
        return Stack(nnx.List([loud(block) for block in layer.blocks]))
    if not isinstance(layer, nnx.Module):
        return layer
    rng = np.random.default_rng(1)
    graph, state = nnx.split(layer)
    louder = jax.tree.map(
        lambda leaf: jnp.asarray(2.0 * np.asarray(leaf) + 0.3 * rng.standard_normal(leaf.shape)), state
    )
    return nnx.merge(graph, louder)


def plain(layer: Any, value: jax.Array) -> jax.Array:
    """The layer as it stands in a forward pass, of one image, [tokens, width]."""
    if isinstance(layer, Stack):
        for block in layer.blocks:
            value = block(value[None])[0]
        return value
    output = layer(value[None])[0]
    return output.reshape(-1, output.shape[-1])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", LAYERS)
def test_a_pullback_is_that_of_vjp(name: str, schedule: ScheduleName):
    make, shape = LAYERS[name]
    with jax.enable_x64(True):
        layer = loud(make())
        value = jnp.asarray(np.random.default_rng(2).standard_normal(shape))
        output, vjp = jax.vjp(lambda x: plain(layer, x), value)
        linearized, residuals = layer.linearize(value)
        assert relative(linearized, output) <= TOLERANCE
        # Folded (many rows) and not (few); cotangents of all tokens, and of the first ones alone.
        for rows, active in ((3, len(output)), (40, len(output)), (40, (len(output) + 1) // 2)):
            cotangent = jnp.asarray(np.random.default_rng(rows).standard_normal((active, rows, output.shape[-1])))
            whole = jnp.pad(cotangent, ((0, len(output) - active), (0, 0), (0, 0)))
            expected = jax.vmap(lambda row: vjp(row)[0], in_axes=1)(whole)
            found = layer.pullback(layer.prepare(EXACT), residuals, cotangent, EXACT, SCHEDULES[schedule])
            if name == "patches":
                expected = expected.reshape(rows, 2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(rows, 6, -1)
            expected = jnp.moveaxis(expected, 0, 1)
            if len(found) < len(expected):  # the others' cotangents are zero
                assert not np.any(np.asarray(expected[len(found) :]))
                expected = expected[: len(found)]
            assert relative(found, expected) <= TOLERANCE


@pytest.mark.parametrize("name", ["MLP", "SwiGLU"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", TOLERANCE), ("float32", 1e-5), ("float16", 2e-3)])
def test_products_of_weights_make_the_same_matrices(name: str, precision: Precision, tolerance: float):
    with jax.enable_x64(precision == "float64"):
        layer = loud(LAYERS[name][0]())
        plain, multiplied = Products(precision), Products(precision, khatri_rao=True)
        value = jnp.asarray(np.random.default_rng(5).standard_normal((9, WIDTH)), working_dtype(precision))
        cotangent = plain.stored(jnp.broadcast_to(value[:, None], (9, 40, WIDTH)))
        _, slopes = layer.linearize(value)
        expected, found = (
            layer.pullback_tokens(layer.prepare(products), slopes, cotangent, products)
            for products in (plain, multiplied)
        )
        assert relative(found, expected) <= tolerance
        # One token is not worth them: it goes the other way, to the last bit.
        one = [
            layer.pullback_tokens(layer.prepare(products), slopes[:1], cotangent[:1], products)
            for products in (plain, multiplied)
        ]
        np.testing.assert_array_equal(*one)


@pytest.mark.parametrize("make", ["MLP", "SwiGLU"])
def test_a_norm_and_a_scale_fold_into_kernels(make: str):
    with jax.enable_x64(True):
        layer, norm = loud(LAYERS[make][0]()), loud(LayerNorm(WIDTH, 1e-6))
        assert isinstance(layer, HiddenLayer)
        scale = jnp.linspace(0.5, 2.0, WIDTH)
        value, cotangent = jnp.asarray(np.random.default_rng(3).standard_normal((2, 9, WIDTH)))
        kernels = layer.prepare(EXACT, norm, scale)
        normed, residuals = norm.linearize(value)
        _, derivatives = layer.linearize(normed)
        rows = jnp.broadcast_to(cotangent[:, None], (9, 40, WIDTH))
        found = layer.pullback_tokens(kernels, derivatives, rows, EXACT, residuals)
        _, vjp = jax.vjp(lambda x: layer(norm(x)) * scale, value)
        assert relative(found[:, 0], vjp(cotangent)[0]) <= TOLERANCE


def test_compact_patches_have_the_same_singular_values():
    with jax.enable_x64(True):
        layer = loud(PatchEmbedding(4, WIDTH, nnx.Rngs(0)))
        whole, compact = layer.prepare(EXACT).kernel, layer.prepare_compact(EXACT).kernel
        assert compact.shape == (WIDTH, WIDTH)
        assert whole.shape == (WIDTH, 48)
        rows = np.random.default_rng(4).standard_normal((9, WIDTH))
        values = (np.linalg.svd(rows @ np.asarray(kernel), compute_uv=False) for kernel in (whole, compact))
        np.testing.assert_allclose(*values, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "layer norm, large epsilon"])
def test_null_directions_are_null(name: str):
    make, shape = LAYERS[name]
    with jax.enable_x64(True):
        layer = loud(make())
        value = jnp.asarray(np.random.default_rng(2).standard_normal(shape))
        before = no_null_directions(value.reshape(-1, value.shape[-1]))
        output, _ = layer.linearize(value)
        nulls = layer.null_directions(before, output)
        jacobian = jax.jacrev(lambda x: plain(layer, x))(value)  # [M, e, *shape]
        for token in range(len(output)):
            directions = jnp.concatenate([nulls.shared, nulls.own[token]], axis=-1)
            assert directions.shape[0] == output.shape[-1]
            along = jnp.tensordot(directions, jacobian[token], ([0], [0]))
            # LayerNorm's second one is null up to epsilon / variance.
            assert float(jnp.max(jnp.abs(along), initial=0.0)) <= 2e-6 * float(jnp.max(jnp.abs(jacobian)))
