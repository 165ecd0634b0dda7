"""What layers say of their costs is what the program does."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from counting import counted, counted_naive, multiplications
from makes import MAKES

from jepa_jax.costs.planning import multiplications as planned
from jepa_jax.encoders import find_spec
from jepa_jax.encoders.function import EncoderFunction
from jepa_jax.encoders.layerwise import cut_spec
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.layers.schedule import SCHEDULES, ScheduleName
from jepa_jax.numerics.products import Products

SHAPE = (12, 20, 3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("make", MAKES)
def test_costs_are_the_multiplications_of_the_program(make: str, schedule: ScheduleName):
    function = EncoderFunction(MAKES[make])
    outputs = function.vit.embedding_size
    for rows in (None, 5):
        options = JacobianOptions(schedule=schedule, block_size=rows)
        found = counted(function, SHAPE, options)
        each = -(-outputs // -(-outputs // (rows or outputs)))
        cost = function.cost(SHAPE, each, SCHEDULES[schedule], Products())
        # Sums over one row at a time (LayerNorm's, the head's) are told to a hundredth of a block.
        assert planned(cost, each, outputs) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("make", [name for name, spec in MAKES.items() if spec.depth == 3])
def test_the_cost_of_a_sweep_is_less_than_that_of_its_layers(make: str, schedule: ScheduleName):
    alone = EncoderFunction(MAKES[make])
    sweep, outputs = alone.with_layers([1, 2, 3]), alone.vit.embedding_size
    for rows in (outputs, 5):
        options = JacobianOptions(schedule=schedule, block_size=rows)
        cost = sweep.cost(SHAPE, rows, SCHEDULES[schedule], Products())
        found = counted(sweep, SHAPE, options)
        assert planned(cost, rows, outputs) == pytest.approx(found, rel=0.01)
    apart_from_each_other = [*(EncoderFunction(cut_spec(alone.vit, layer)) for layer in (1, 2)), alone]
    apart = sum(counted(each, SHAPE, JacobianOptions(schedule=schedule)) for each in apart_from_each_other)
    assert counted(alone.with_layers([1, 2]), SHAPE, JacobianOptions(schedule=schedule)) < apart


@pytest.mark.parametrize("make", MAKES)
def test_naive_costs_are_those_of_jax(make: str):
    spec = MAKES[make]
    function, outputs = EncoderFunction(spec), spec.embedding_size
    cost = function.cost(SHAPE, outputs, SCHEDULES["looped"], Products())
    assert cost.forward + cost.by_vjp == pytest.approx(counted_naive(function, SHAPE), rel=0.01)


@pytest.mark.parametrize("image_size", [112, 224])
def test_the_layers_do_less_arithmetic_than_one_pullback_per_row(image_size: int):
    function = EncoderFunction(find_spec("dinov2-small").vit)
    shape = (image_size, image_size, 3)
    assert counted(function, shape, JacobianOptions()) <= 0.75 * counted_naive(function, shape)


def test_costs_add_up_and_one_layer_works_at_a_time():
    function = EncoderFunction(MAKES["class token"])
    cost = function.cost(SHAPE, 24, SCHEDULES["looped"], Products())
    twice = cost + cost
    assert twice.pullback == cost.times(2).pullback == 2 * cost.pullback
    assert twice.workspace == cost.times(2).workspace == cost.workspace
    wide = function.cost(SHAPE, 24, SCHEDULES["looped"], Products("float64"))
    assert wide == dataclasses.replace(
        cost,
        **{name: 2 * getattr(cost, name) for name in ("kernels", "residuals", "workspace", "jacobian")},
    )


def test_multiplications_are_those_of_the_products():
    kernel = jnp.ones((5, 3))

    def twice(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: (c @ kernel @ kernel.T, None), x, None, length=7)[0]

    assert multiplications(jax.make_jaxpr(twice)(jnp.ones((2, 5))).jaxpr) == 7 * 2 * (2 * 5 * 3)
