"""The GPU's program for the end of a branch: interpreted, against XLA's way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from makes import relative

from jepa_jax.layers import layer_norm_gpu
from jepa_jax.layers.layer_norm import NormResiduals, pullback_folded
from jepa_jax.numerics.products import Products


def drawn(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape), jnp.float32)


# Rows in one step that is not full, in one, and in two and some; widths in one piece and in several.
@pytest.mark.parametrize(("rows", "width"), [(5, 16), (32, 48), (70, 384)])
def test_the_program_equals_the_sum(rows: int, width: int):
    pulled, onto = drawn(3, rows, width), drawn(3, rows, width) / 2
    residuals = NormResiduals(drawn(3, width), jnp.array([0.5, 2.0, 3.0]))
    with jax.default_matmul_precision("highest"):
        expected = pullback_folded(residuals, pulled, Products(), jnp.float32(2), onto)
    found = layer_norm_gpu.add_pullback(pulled, onto, residuals.normalized, 2 * residuals.inverse_std, interpret=True)
    # Both sum at most 384 float32 terms, in other orders.
    assert relative(found, expected) <= 2e-6


def test_it_is_for_all_tokens_and_pieces_of_rows():
    float16 = Products("float16", "gpu")
    assert layer_norm_gpu.fits(float16, (257, 384, 384))
    assert layer_norm_gpu.fits(float16, (257, 5, 80))
    assert not layer_norm_gpu.fits(float16, (384, 384)), "a token at a time"
    assert not layer_norm_gpu.fits(float16, (257, 384, 24)), "no pieces"
    assert not layer_norm_gpu.fits(Products("float16", "gpu", "off"), (257, 384, 384))
    assert not layer_norm_gpu.fits(Products("float16", "cpu"), (257, 384, 384))
    assert layer_norm_gpu.fits(Products("float32", "gpu"), (257, 384, 384))
    assert not layer_norm_gpu.fits(Products("float64", "gpu"), (257, 384, 384))


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
def test_it_lowers_for_a_gpu_and_writes_in_place():
    shapes = [((4, 257, 384, 384), jnp.float16)] * 2 + [((4, 257, 384), jnp.float32), ((4, 257), jnp.float32)]
    arguments = [jax.ShapeDtypeStruct(*each) for each in shapes]
    card = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="cuda")
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=card)):
        traced = jax.jit(jax.vmap(layer_norm_gpu.add_pullback)).trace(*arguments)
        lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("__gpu$xla.gpu.triton") == lowered.count("output_tuple_indices") == 1
