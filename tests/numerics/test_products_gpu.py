"""The GPU's program for products in two bfloat16 parts: interpreted, against float64, and lowered for a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from makes import relative

from jepa_jax.numerics import products_gpu
from jepa_jax.numerics.products import Products
from jepa_jax.numerics.triton import parts_of

# An operand in two parts lacks up to 2^-18 of itself, and what is dropped is the product of two numbers of up to 2^-9.
IN_PARTS = 3 * 2.0**-18

IN_THREE_X = Products("bfloat16_3x", "gpu")


def some(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def multiplied(formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
    operands = products_gpu.matrices(formula, left, right)
    assert operands is not None
    return products_gpu.multiply(operands, interpret=True)


# As layers multiply: rows in tiles that are not full, several tiles, half as many columns as a tile has.
FORMULAS = [
    ("...re,...de->...rd", (3, 70, 64), (3, 64, 64)),  # each token's own matrix
    ("nre,de->nrd", (3, 50, 96), (192, 96)),  # one matrix for all
    ("...h,hde->...de", (7, 64), (64, 16, 8)),  # the products of an MLP's weights
    ("dh,...he->...de", (64, 32), (5, 32, 128)),  # the left one for all
    ("de,...re->...dr", (130, 32), (2, 64, 32)),
    ("...rd,dm->...rm", (3, 4, 32), (32, 192)),
]


@pytest.mark.parametrize(("formula", "left", "right"), FORMULAS)
def test_the_program_equals_the_contraction(formula: str, left: tuple[int, ...], right: tuple[int, ...]):
    operands = some(*left), some(*right)
    exact = np.einsum(formula, *(np.asarray(operand, np.float64) for operand in operands))
    found = multiplied(formula, *operands)
    assert found.dtype == np.float32
    assert relative(found, exact) <= IN_PARTS


@pytest.mark.parametrize(("formula", "left", "right"), FORMULAS)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_images_side_by_side_are_each_their_own(
    formula: str, left: tuple[int, ...], right: tuple[int, ...], axes: tuple[int | None, int | None]
):
    operands = some(*left), some(*right)
    alone = multiplied(formula, *operands)
    both = [
        operand if axis is None else jnp.stack([operand, 2 * operand])
        for operand, axis in zip(operands, axes, strict=True)
    ]
    found = jax.vmap(lambda left, right: multiplied(formula, left, right), in_axes=axes)(*both)
    np.testing.assert_array_equal(found[0], alone)
    np.testing.assert_array_equal(found[1], alone * (4 if axes == (0, 0) else 2))


@pytest.mark.parametrize(
    ("formula", "left", "right"),
    [
        ("nre,de->nrd", (3, 50, 80), (64, 80)),  # terms
        ("nre,de->nrd", (3, 50, 64), (40, 64)),  # columns
        ("irhe,hije->hijr", (2, 3, 4, 32), (4, 2, 64, 32)),  # the left one's axes would have to be moved
        ("hij,hjfe->hife", (2, 5, 17), (2, 17, 8, 8)),
    ],
)
def test_other_products_are_in_float32(formula: str, left: tuple[int, ...], right: tuple[int, ...]):
    assert products_gpu.matrices(formula, some(*left), some(*right)) is None
    assert precisions(IN_THREE_X, formula, left, right) == [jax.lax.Precision.HIGHEST]


def precisions(products: Products, formula: str, left: tuple[int, ...], right: tuple[int, ...]) -> list:
    """Of the XLA products that a contraction becomes."""
    program = jax.make_jaxpr(lambda a, b: products(formula, a, b))(some(*left), some(*right))
    return [each.params["precision"][0] for each in program.eqns if each.primitive.name == "dot_general"]


def test_kernels_off_is_float32():
    shapes = (3, 50, 64), (64, 64)
    assert precisions(IN_THREE_X, "nre,de->nrd", *shapes) == []
    off = Products("bfloat16_3x", "gpu", "off")
    assert precisions(off, "nre,de->nrd", *shapes) == [jax.lax.Precision.HIGHEST]
    assert not isinstance(off.prepared(some(4)), tuple)


def test_what_is_prepared_is_taken_apart_once():
    left, right = some(7, 64), some(64, 16, 8)
    prepared = IN_THREE_X.prepared(right)
    assert isinstance(prepared, tuple)
    for mine, theirs in zip(prepared, parts_of(right, 2, jnp.bfloat16), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # Also where there is no program for it: one token.
    np.testing.assert_allclose(
        IN_THREE_X("...h,hde->...de", left[0], prepared), jnp.einsum("h,hde->de", left[0], right), atol=1e-4
    )


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
def test_it_lowers_for_a_gpu():
    card = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="cuda")
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((257, 384, 1152), (384, 1152))]
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=card)):
        traced = jax.jit(lambda left, right: IN_THREE_X("nre,de->nrd", left, right)).trace(*arguments)
        lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("__gpu$xla.gpu.triton") == 1
    assert "stablehlo.dot_general" not in lowered
