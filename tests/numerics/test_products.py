"""What products store: on a CPU the numbers of a level, elsewhere its dtype."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jepa_jax.numerics.precision import LEVELS, Precision, levels_from
from jepa_jax.numerics.products import HALF, Products, normalized

DTYPES: dict[Precision, type] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("level", HALF)
def test_a_cpu_rounds_to_the_numbers_of_a_level(level: Precision):
    rng = np.random.default_rng(0)
    exponents = rng.uniform(-30, 18, 20_000)  # float16 has zeros below 2^-25 and infinities from 65,520
    values = (rng.choice([-1, 1], exponents.size) * 2.0**exponents).astype(np.float32)
    halfway = np.array([0, 2.0**-24, 2.0**-25, 1.5 * 2.0**-24, 2.0**-14, 65519, 65520, -65520, np.inf, np.nan])
    values = np.concatenate([values, halfway.astype(np.float32)])
    with np.errstate(over="ignore"):
        expected = values.astype(DTYPES[level]).astype(np.float32)
    np.testing.assert_array_equal(Products(level).stored(jnp.asarray(values)), expected)


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_an_accelerator_stores_a_levels_own_dtype(level: Precision):
    expected = DTYPES.get(level, np.float32)
    values = jnp.ones((3, 4), jnp.float32)
    for platform in ("gpu", "tpu"):
        products = Products(level, platform)
        assert products.stored(values).dtype == expected
        stored = products.stored(values)
        if level in HALF:
            assert products("ij,kj->ik", stored, stored).dtype == expected
            assert products.summed("ij,kj->ik", stored, stored).dtype == np.float32


@pytest.mark.parametrize("size", [1e-9, 3.7, 1e6])
def test_a_kernel_of_float16_keeps_the_size_of_what_it_is_applied_to(size: float):
    values = size * np.random.default_rng(1).standard_normal((40, 60)).astype(np.float32)
    stored, scale = Products("float16").kernel(jnp.asarray(values))
    assert scale is not None
    assert np.frexp(scale)[0] == 0.5, "a power of two"
    root_mean_square = np.sqrt(np.mean(np.linalg.svd(np.asarray(stored), compute_uv=False) ** 2))
    assert 1 <= root_mean_square < 2 * (1 + 2**-11)
    np.testing.assert_allclose(np.asarray(stored) * np.asarray(scale), values, rtol=2**-11, atol=2**-24 * scale)


def test_other_levels_need_no_scale():
    values = jnp.full((2, 3), 1e-9, jnp.float32)
    for level in LEVELS:
        if level != "float16":
            assert Products(level).kernel(values)[1] is None
            assert normalized(Products(level), values)[1] is None


def test_cotangents_enter_float16_at_about_one():
    values = jnp.array([[3e-7, -5e-6], [0, 1e-9]], jnp.float32)
    stored, scale = normalized(Products("float16"), values)
    assert 1 <= np.max(np.abs(stored)) < 2
    np.testing.assert_allclose(np.asarray(stored) * np.asarray(scale), values, rtol=2**-11)
    stored, scale = normalized(Products("float16"), jnp.zeros((2, 2), jnp.float32))
    assert np.all(np.asarray(stored) == 0)
    assert np.isfinite(np.asarray(scale))


def test_a_platform_has_its_levels():
    assert levels_from("bfloat16", "gpu") == list(LEVELS)
    assert levels_from("tensorfloat32", "gpu") == list(LEVELS[2:])
    assert levels_from("bfloat16", "tpu") == ["bfloat16", *LEVELS[2:]]


@pytest.mark.parametrize(
    ("formula", "left", "right", "thin"),
    [
        ("...rd,...d->...r", (5, 4, 3), (5, 3), True),  # a norm's sums along its output
        ("hij,irhe->jrhe", (2, 1, 7), (1, 4, 2, 3), True),  # the class token alone
        ("...re,...de->...rd", (5, 1, 4), (5, 3, 4), True),  # one row
        ("hij,irhe->jrhe", (2, 5, 7), (5, 4, 2, 3), False),
        ("de,...re->...dr", (3, 4), (5, 6, 4), False),
    ],
)
def test_products_that_are_no_work_for_matrix_units_are_sums_in_float32(
    formula: str, left: tuple[int, ...], right: tuple[int, ...], thin: bool
):
    products = Products("bfloat16_3x", "tpu")
    program = jax.make_jaxpr(lambda a, b: products(formula, a, b))(jnp.ones(left), jnp.ones(right))
    (product,) = [equation for equation in program.eqns if equation.primitive.name == "dot_general"]
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert product.params["precision"] == (highest if thin else jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3)


@pytest.mark.parametrize(
    ("formula", "left", "right"),
    [
        ("hij,irhe->jrhe", (3, 1, 5), (1, 4, 3, 2)),  # attention of a single token: values
        ("hijr,hif->jrhf", (3, 1, 5, 4), (3, 1, 2)),  # keys
        ("ij,ier->jer", (1, 5), (1, 2, 4)),
    ],
)
def test_a_sum_of_one_term_is_one_multiplication(formula: str, left: tuple[int, ...], right: tuple[int, ...]):
    rng = np.random.default_rng(0)
    operands = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (left, right)]
    products = Products("float16", "gpu").of_one_token()
    # To the last digit: each number of the result is one product of two.
    np.testing.assert_array_equal(products(formula, *operands), np.einsum(formula, *map(np.asarray, operands)))
    assert "dot_general" not in jax.jit(products, static_argnums=0).lower(formula, *operands).as_text()


def test_what_belongs_to_a_single_token_is_not_rounded():
    rng = np.random.default_rng(0)
    cotangent = jnp.asarray(rng.standard_normal((1, 5, 7)), jnp.float32)
    for level in HALF:
        entered, scale = normalized(Products(level, "gpu"), cotangent)
        assert entered.dtype == np.float32
        np.testing.assert_array_equal(entered * (1.0 if scale is None else scale), cotangent)
    assert Products("float64").of_one_token() == Products("float64")
