"""What an accelerator is given to compile: lowered for it here, and read."""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from makes import change

from jepa_jax.encoders import EncoderFunction, ViTSpec
from jepa_jax.encoders.parameters import parameter_shapes
from jepa_jax.jacobian.jacobian import differential, prepare
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import Precision

# Prime numbers, so that a dimension says what it is: tokens are 17 (a class token and 4 x 4 patches).
ROWS, WIDTH, TOKENS = 37, 46, 17
ELEMENTWISE = {"convert", "add", "subtract", "multiply", "broadcast_in_dim", "constant", "reshape"}


class Operation(NamedTuple):
    """A line of StableHLO."""

    name: str
    operands: list[tuple[tuple[int, ...], str]]
    results: list[tuple[tuple[int, ...], str]]


def architecture(depth: int) -> ViTSpec:
    return change(depth=depth, width=WIDTH, heads=2, mlp_width=80, projection=ROWS)


def operations(spec: ViTSpec, precision: Precision, platform: Platform, images: int) -> list[Operation]:
    """Of the Jacobians of some images, without what is prepared once for all."""
    function, shape = EncoderFunction(spec), (16, 16, 3)
    options = JacobianOptions(engine="rules", precision=precision, platform=platform)
    params = parameter_shapes(spec)
    prepared = jax.eval_shape(lambda params: prepare(function, params, shape, options, compact=True), params)

    def transposes(params: Any, prepared: Any, batch: jax.Array) -> jax.Array:
        one = functools.partial(differential, function, params, prepared, options=options)
        return jax.vmap(lambda image: one(image).transpose)(batch) if images > 1 else one(batch[0]).transpose

    batch = jax.ShapeDtypeStruct((images, *shape), jnp.float32)
    lowered = (
        jax.jit(transposes)
        .trace(params, prepared, batch)
        .lower(lowering_platforms=("cuda" if platform == "gpu" else "tpu",))
    )
    return [read for line in lowered.as_text().splitlines() if (read := operation(line)) is not None]


def operation(line: str) -> Operation | None:
    match = re.search(r"stablehlo\.(\w+)", line)
    if match is None or " : " not in line:
        return None
    types = line.rsplit(" : ", 1)[1]
    operands, _, results = types.rpartition("->")
    if not operands:  # one type for all of them
        operands = results = types
    return Operation(match[1], tensors(operands), tensors(results))


def tensors(text: str) -> list[tuple[tuple[int, ...], str]]:
    found = re.findall(r"tensor<((?:\d+x)*)(\w+)>", text)
    return [(tuple(map(int, shape.split("x")[:-1])), dtype) for shape, dtype in found]


def with_rows(operation: Operation) -> bool:
    return any(ROWS in shape for shape, _ in (*operation.operands, *operation.results))


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(
    ("precision", "platform", "dtype"),
    [("float16", "gpu", "f16"), ("bfloat16", "gpu", "bf16"), ("bfloat16", "tpu", "bf16"), ("float32", "gpu", "f32")],
)
def test_an_accelerator_gets_few_large_products(precision: Precision, platform: Platform, dtype: str, images: int):
    two, three = (operations(architecture(depth), precision, platform, images) for depth in (2, 3))
    assert not [op for op in three if op.name == "while"], "a loop over tokens, heads, blocks or images"
    assert not [op for op in three if op.name == "concatenate" and with_rows(op)], "a copy of cotangents"
    products = [[op for op in ops if op.name == "dot_general" and with_rows(op)] for ops in (two, three)]
    assert 0 < len(products[1]) - len(products[0]) <= 16, "of one block, with rows in them"
    of_patches = images * (TOKENS - 1) * ROWS * WIDTH  # the smallest that all rows of all tokens come to
    large = [op for op in three if any(np.prod(shape) >= of_patches for shape, _ in op.results)]
    *within, last = [op for op in large if op.name == "dot_general"]
    for op in within:
        assert {kind for _, kind in (*op.operands, *op.results)} == {dtype}, op
    # What leaves the patches is the Jacobian itself, as it was summed up; it is turned on its way out.
    assert {kind for _, kind in last.operands} == {dtype}
    assert last.results[0][1] == "f32"
    if dtype != "f32":
        wide = [op.name for op in large if op is not last and any(kind == "f32" for _, kind in op.results)]
        assert [name for name in wide if name not in ELEMENTWISE] == ["transpose"], "the others are fused"
