"""The TPU's program for attention, interpreted here, against XLA's products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from makes import relative

from jepa_jax.layers import attention_tpu, heads
from jepa_jax.numerics.products import Products

# Both sum at most some dozen float32 terms at a time, in other orders.
TOLERANCE = 1e-6


def residuals_of(tokens: int, count: int, width: int) -> heads.AttentionResiduals:
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.standard_normal((count, tokens, width)), jnp.float32) for _ in range(3))
    return heads.AttentionResiduals(query / width**0.5, key, value)


# Heads that share a register by two and by four, that fill it alone, and that lie in one or two; rows in steps of 8, 5
# and 7.
@pytest.mark.parametrize(
    ("tokens", "rows", "count", "width"),
    [(21, 16, 4, 64), (17, 10, 2, 128), (9, 7, 4, 32), (9, 7, 16, 80), (9, 5, 4, 96)],
)
def test_the_program_equals_the_products(tokens: int, rows: int, count: int, width: int):
    residuals = residuals_of(tokens, count, width)
    cotangent = jnp.asarray(np.random.default_rng(1).standard_normal((tokens, rows, count, width)), jnp.float32)
    with jax.default_matmul_precision("highest"):
        found = attention_tpu.pullback_heads(Products(), cotangent, residuals, interpret=True)
        expected = heads.pullback_heads(Products(), cotangent, residuals)
    assert found.shape == (3, rows, tokens, count * width)
    for part, of_part in zip(found, expected, strict=True):
        assert relative(part, jnp.swapaxes(of_part, 0, 1).reshape(rows, tokens, -1)) <= TOLERANCE


def test_it_is_for_16_bits_and_heads_that_fill_the_lanes():
    bfloat16 = Products("bfloat16", "tpu")
    assert attention_tpu.fits(bfloat16, 257, (6, 257, 64))
    assert attention_tpu.fits(bfloat16, 1370, (12, 1370, 64))
    assert not attention_tpu.fits(bfloat16, 1, (6, 257, 64)), "a pruned block"
    assert attention_tpu.fits(bfloat16, 257, (16, 257, 80)), "ViT-H"
    assert attention_tpu.fits(bfloat16, 257, (16, 257, 88)), "ViT-g of I-JEPA"
    assert not attention_tpu.fits(bfloat16, 257, (6, 257, 80)), "no whole registers"
    assert not attention_tpu.fits(bfloat16, 257, (3, 257, 64)), "an odd number of heads"
    assert not attention_tpu.fits(bfloat16, 4097, (2, 4097, 64)), "logits larger than the chip's memory"
    assert not attention_tpu.fits(Products("bfloat16_3x", "tpu"), 257, (6, 257, 64))
