"""Is the backend sound, and is it asked for full precision everywhere?"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jacobian_problems import computing_in, ones, tiny_encoder

import jepa_jax as jj
from jepa_jax.encoders import ViTSpec, find_spec
from jepa_jax.jacobian import backend_check, check_backend
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.layers import heads
from jepa_jax.layers.schedule import SCHEDULES, ScheduleName
from jepa_jax.numerics.platforms import Platform
from jepa_jax.numerics.precision import LEVELS, ROUNDING, Precision
from jepa_jax.numerics.products import Products


@pytest.fixture(scope="module")
def encoder() -> jj.Encoder:
    return tiny_encoder()


@pytest.fixture
def forgotten_checks() -> Iterator[None]:
    """The backend is checked anew, and again afterwards, whatever the test made of it."""

    def forget() -> None:
        backend_check._failed.cache_clear()
        backend_check._failed_layers.cache_clear()

    forget()
    yield
    forget()


def test_this_backend_is_sound():
    checks = {check.name: check for check in check_backend("cpu")}
    assert all(check.passed for check in checks.values())
    assert {f"pullback of a transformer block in {level}" for level in LEVELS} < checks.keys()
    # Sums of at most 64 products of numbers near 1; the tolerance leaves room for other orders of summation.
    plain = [check for name, check in checks.items() if "block in" not in name]
    assert max(check.error for check in plain) <= 64 * np.finfo(np.float32).eps / 2


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_schedule_is_sound(schedule: ScheduleName):
    assert backend_check.layers_check(JacobianOptions(schedule=schedule)).passed


@pytest.mark.parametrize(("head_width", "level"), [(80, "float16"), *((16, level) for level in LEVELS[:-2])])
def test_heads_of_other_widths_are_sound(head_width: int, level: Precision):
    found = backend_check.layers_check(JacobianOptions(precision=level), head_width)
    assert found.passed
    assert found.name.endswith(f"{level}, heads of {head_width}")


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_a_kernel_is_checked_with_heads_as_wide_as_the_encoders(platform: Platform, monkeypatch):
    def with_heads_of(width: int) -> ViTSpec:
        return dataclasses.replace(find_spec("dinov2-small").vit, width=4 * width, heads=4)

    checked = []
    monkeypatch.setattr(backend_check, "_failed", lambda *_: ())
    monkeypatch.setattr(backend_check, "_failed_layers", lambda options, head_width: checked.append(head_width) or ())
    options = JacobianOptions(precision="bfloat16", platform=platform)
    for head_width in (16, 32, 80, 128):
        backend_check.require_sound_backend(options, with_heads_of(head_width))
    others = {"cpu": [64] * 4, "gpu": [16, 32, 64, 128], "tpu": [16, 32, 80, 128]}
    assert checked == others[platform]
    checked.clear()
    for other in (dataclasses.replace(options, kernels="off"), dataclasses.replace(options, precision="float32")):
        backend_check.require_sound_backend(other, with_heads_of(80))
    assert checked == [64, 64]
    with pytest.raises(jj.ArgumentError, match="bfloat16"):  # a function without layers has no such level
        backend_check.require_sound_backend(options, None)
    backend_check.require_sound_backend(JacobianOptions(platform=platform), None)
    assert checked == [64, 64]


def test_a_check_that_gives_nan_fails():
    assert not backend_check.Check("nothing", float("nan"), 1.0).passed


@pytest.mark.usefixtures("forgotten_checks")
@pytest.mark.parametrize("use", [jj.jacobian, jj.score, lambda fn, x: jax.jit(lambda y: jj.jacobian(fn, y))(x)])
def test_a_backend_that_lies_is_refused(monkeypatch, use):
    wrong = backend_check.Check("softmax pullback over a block of rows", 0.3, 1e-5)
    monkeypatch.setattr(backend_check, "softmax_check", lambda: wrong)
    with pytest.raises(jj.BackendError, match=r"softmax pullback.*3\.0e-01.*pip install.*doctor"):
        use(jnp.sin, ones(1, 2))


@pytest.mark.usefixtures("forgotten_checks")
def test_a_wrong_kernel_is_refused(monkeypatch, encoder):
    right = heads.pullback_head

    def wrong(*arguments):
        of_query, of_value, of_key = right(*arguments)
        return of_query, of_value, of_key.at[:, -1].mul(0.9)  # one token's key, by a tenth

    monkeypatch.setattr(heads, "pullback_head", wrong)
    with pytest.raises(jj.BackendError, match="pullback of a transformer block in float32: relative error"):
        jj.score(encoder, ones(1, 8, 8, 3))


@pytest.mark.usefixtures("forgotten_checks")
@pytest.mark.parametrize("level", LEVELS[1:])
def test_a_product_that_is_coarser_than_it_was_asked_to_be_is_refused(monkeypatch, encoder, level: Precision):
    coarser: list[Precision] = [other for other in LEVELS if ROUNDING[other] > ROUNDING[level]]
    right = Products.__call__

    def wrong(self, formula, left, right_operand):
        operands = (
            (left, right_operand) if level != "float64" else (x.astype("float32") for x in (left, right_operand))
        )
        found = right(Products(coarser[-1], self.platform), formula, *operands)
        return found.astype(left.dtype)

    monkeypatch.setattr(Products, "__call__", wrong)
    with pytest.raises(jj.BackendError, match=f"pullback of a transformer block in {level}: relative error"):
        jj.Scorer(encoder, precision=level)


@pytest.mark.usefixtures("forgotten_checks")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_check_may_happen_inside_a_trace(dtype):
    with computing_in(dtype):
        found = jax.jit(lambda x: jj.jacobian(jnp.sin, x))(np.zeros((1, 2), dtype))
    np.testing.assert_array_equal(found[0], np.eye(2))


def inexact_products(program: str) -> tuple[int, int]:
    """How many matrix products a StableHLO program has, and how many do not ask for full precision."""
    products = [line for line in program.splitlines() if "dot_general" in line or "stablehlo.convolution" in line]
    return len(products), sum("precision = [HIGHEST, HIGHEST]" not in line for line in products)


@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
@pytest.mark.parametrize("method", ["svd", "gram"])
def test_every_product_of_a_float32_score_is_exact(encoder, mode, method):
    # XLA's default is TF32 on NVIDIA GPUs and bfloat16 on TPUs; the CPU's results would not show it.
    fn, params = jj.score_fn(encoder, mode=mode, method=method)
    assert isinstance(fn, functools.partial)
    total, inexact = inexact_products(fn.func.lower(*fn.args, params, ones(2, 8, 8, 3)).as_text())
    assert total > 10
    assert inexact == 0


def test_every_product_of_an_embedding_is_exact(encoder):
    total, inexact = inexact_products(jax.jit(encoder).lower(ones(2, 8, 8, 3)).as_text())
    assert total > 5
    assert inexact == 0


def test_inexact_products_would_be_seen(encoder):
    plain = jax.jit(encoder.function).lower(encoder.params, ones(2, 8, 8, 3))
    total, inexact = inexact_products(plain.as_text())
    assert total == inexact > 5
