"""The GPU's programs for attention: interpreted, against XLA's products, and lowered for a GPU that is not here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from makes import relative

from jepa_jax.layers import attention_gpu, heads
from jepa_jax.numerics.precision import Precision
from jepa_jax.numerics.products import Products

# Both sum at most 130 float32 terms, in other orders.
TOLERANCE = 2e-6

# Of operands in two bfloat16 parts 2^-18 is left, in each of two products that follow each other, and what of their
# two operands; the sums' own rounding is less.
IN_PARTS = 4 * 2.0**-18


def residuals_of(tokens: int, count: int, width: int) -> heads.AttentionResiduals:
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.standard_normal((count, tokens, width)), jnp.float32) for _ in range(3))
    return heads.AttentionResiduals(query / width**0.5, key, value)


def cotangent_of(tokens: int, rows: int, count: int, width: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal((tokens, rows, count, width)), jnp.float32)


# Fewer tokens than a tile, a tile, one more, tiles and some; rows in one step, and in two of which one is not full.
@pytest.mark.parametrize(
    ("tokens", "rows", "count", "width"), [(21, 16, 2, 64), (64, 5, 1, 16), (130, 7, 2, 16), (5, 130, 1, 32)]
)
@pytest.mark.parametrize(("level", "tolerance"), [("float32", TOLERANCE), ("bfloat16_3x", IN_PARTS)])
def test_the_programs_equal_the_products(
    tokens: int, rows: int, count: int, width: int, level: Precision, tolerance: float
):
    residuals, cotangent = residuals_of(tokens, count, width), cotangent_of(tokens, rows, count, width)
    with jax.default_matmul_precision("highest"):
        found = attention_gpu.pullback_heads(Products(level), cotangent, residuals, interpret=True)
        expected = heads.pullback_heads(Products(), cotangent, residuals)
    parts = jnp.split(found.reshape(tokens, rows, 3, count, width), 3, axis=2)
    errors = [relative(part[:, :, 0], of_part) for part, of_part in zip(parts, expected, strict=True)]
    assert max(errors) <= tolerance, errors


def test_images_side_by_side_are_each_their_own():
    residuals, cotangent = residuals_of(21, 2, 16), cotangent_of(21, 6, 2, 16)
    program = functools.partial(attention_gpu.pullback_heads, Products(), interpret=True)
    both = jax.vmap(program)(
        jnp.stack([cotangent, 2 * cotangent]), jax.tree.map(lambda x: jnp.stack([x, x]), residuals)
    )
    alone = program(cotangent, residuals)
    assert relative(both[0], alone) <= TOLERANCE
    assert relative(both[1], 2 * alone) <= TOLERANCE


def test_they_are_for_16_bits_one_or_two_at_a_time_and_heads_that_make_a_tile():
    float16 = Products("float16", "gpu")
    assert attention_gpu.fits(float16, 257, (6, 257, 64))
    assert attention_gpu.fits(float16, 1370, (24, 1370, 64))
    assert attention_gpu.fits(Products("bfloat16", "gpu"), 257, (6, 257, 64))
    assert attention_gpu.fits(Products("bfloat16_3x", "gpu"), 257, (6, 257, 64))
    assert not attention_gpu.fits(float16, 1, (6, 257, 64)), "a pruned block"
    assert not attention_gpu.fits(float16, 257, (16, 257, 80)), "ViT-H"
    assert not attention_gpu.fits(float16, 257, (16, 257, 8)), "narrower than a tensor core"
    assert not attention_gpu.fits(Products("tensorfloat32", "gpu"), 257, (6, 257, 64))


# JAX from 0.11 on warns that it will leave the backend behind one day; the products are there for that day.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("tokens", [257, 1370])
@pytest.mark.parametrize(("level", "dtype"), [("float16", jnp.float16), ("bfloat16_3x", jnp.float32)])
def test_they_lower_for_a_gpu(tokens: int, images: int, level: Precision, dtype: jnp.dtype):
    def program(cotangent: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return attention_gpu.pullback_heads(Products(level, "gpu"), cotangent, (query, key, value))

    shapes = [((tokens, 384, 6, 64), dtype), *[((6, tokens, 64), jnp.float32)] * 3]
    arguments = [jax.ShapeDtypeStruct((images, *shape), dtype) for shape, dtype in shapes]
    card = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="cuda")
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=card)):
        lowered = jax.jit(jax.vmap(program)).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("__gpu$xla.gpu.triton") == 2
    # One buffer: the second program writes its part into what the first has left.
    assert lowered.count("output_tuple_indices") == 1
