"""An encoder whose attention goes by a platform's own program, interpreted here, has the same Jacobian."""

from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest
from makes import change, loud_params, relative

import jepa_jax as jj
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec
from jepa_jax.jacobian import backend_check
from jepa_jax.layers import attention_gpu, attention_tpu, heads
from jepa_jax.numerics.products import Products


@pytest.fixture
def forgotten_programs() -> Iterator[None]:
    """Whatever other tests compiled and checked before, and what these do."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    jax.clear_caches()
    backend_check._failed.cache_clear()
    backend_check._failed_layers.cache_clear()


@pytest.mark.usefixtures("forgotten_programs")
@pytest.mark.parametrize(
    ("kernel", "made_for"),
    [(attention_gpu, Products("float16", "gpu")), (attention_tpu, Products("bfloat16", "tpu"))],
    ids=["gpu", "tpu"],
)
@pytest.mark.parametrize("rotary_base", [None, 100.0], ids=["", "rotary"])
def test_the_jacobian_is_the_same(
    kernel: ModuleType, made_for: Products, rotary_base: float | None, monkeypatch: pytest.MonkeyPatch
):
    vit = change(depth=2, width=128, heads=2, rotary_base=rotary_base)
    encoder = Encoder(EncoderSpec("small", "dinov2", vit, PreprocessSpec(18, 16)), loud_params(vit, "float32"))
    batch = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    expected = jj.jacobian(encoder, batch, schedule="batched", kernels="off")
    of_tokens = []

    def interpreted(products, cotangent, residuals):
        of_tokens.append(cotangent.shape[0])
        return kernel.pullback_heads(products, cotangent, residuals, interpret=True)

    def fits(products, queries, keys):
        return kernel.fits(made_for, queries, keys)

    program = SimpleNamespace(
        fits=fits, pullback_heads=interpreted, rotate_back=kernel.rotate_back, to_inputs=kernel.to_inputs
    )
    monkeypatch.setitem(heads.KERNELS, "cpu", program)
    assert relative(jj.jacobian(encoder, batch, schedule="batched"), expected) <= 1e-5
    # The block by which a backend is checked, and one of the encoder's two: the other is pruned to its class token.
    assert of_tokens == [129, 17]
