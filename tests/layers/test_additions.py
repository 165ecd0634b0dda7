"""What an addition touches: a pooling head its file and the family, a kernel its file and the layer's."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import counted
from makes import TOLERANCE, change, loud_params, relative

import jepa_jax as jj
from jepa_jax.costs.planning import multiplications
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec
from jepa_jax.encoders.function import EncoderFunction
from jepa_jax.encoders.vit import POOLINGS
from jepa_jax.jacobian import backend_check
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.layers import SCHEDULES, NullDirections, Pooling, attention_tpu, heads
from jepa_jax.numerics.products import Products


# The new head's file: the mean over all tokens, weighted by their place.
@dataclass(frozen=True)
class WeightedMean(Pooling):
    def weights(self) -> jax.Array:
        return jnp.linspace(0.5, 1.5, self.prefix + self.patches) / (self.prefix + self.patches)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return jnp.einsum("bnd,n->bd", tokens, self.weights().astype(tokens.dtype))[:, None]

    def linearize(self, tokens: jax.Array) -> tuple[jax.Array, tuple[()]]:
        return self(tokens[None])[0], ()

    def pullback(self, kernels, residuals, cotangent, products, schedule) -> jax.Array:
        return cotangent * self.weights().astype(cotangent.dtype)[:, None, None]

    def null_directions(self, before: NullDirections, output: jax.Array) -> NullDirections:
        return before._replace(own=jnp.zeros((*output.shape, 0), output.dtype))


def test_a_pooling_head_is_its_file_and_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(POOLINGS, "weighted_mean", WeightedMean)  # pyright: ignore[reportArgumentType]
    vit = change(depth=2, pooling="weighted_mean")
    encoder = Encoder(EncoderSpec("new", "vit", vit, PreprocessSpec(18, 16)), loud_params(vit, "float32"))
    batch = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    found = jj.jacobian(encoder, batch)
    expected = jax.jit(jax.vmap(jax.jacrev(lambda x: encoder.function(encoder.params, x[None])[0])))(
        jnp.asarray(batch)
    )
    assert relative(found, expected) <= TOLERANCE["float32"]
    assert encoder.null_direction_count == 1
    result = jj.score(encoder, batch)
    assert result.log_volume_rank == vit.width - 1
    assert np.all(np.isfinite(result.score))
    cost = encoder.function.cost((16, 16, 3), vit.width, SCHEDULES["looped"], Products())
    counts = counted(EncoderFunction(vit), (16, 16, 3), JacobianOptions())
    assert multiplications(cost, vit.width, vit.width) == pytest.approx(counts, rel=0.01)


@pytest.fixture
def forgotten_checks() -> Iterator[None]:
    backend_check._failed.cache_clear()
    backend_check._failed_layers.cache_clear()
    yield
    backend_check._failed.cache_clear()
    backend_check._failed_layers.cache_clear()


@pytest.mark.usefixtures("forgotten_checks")
def test_a_kernel_is_its_file_and_a_line(monkeypatch: pytest.MonkeyPatch):
    vit = change(depth=2)
    params = loud_params(vit, "float32")
    encoder = Encoder(EncoderSpec("new", "dinov2", vit, PreprocessSpec(18, 16)), params)
    batch = np.random.default_rng(0).standard_normal((1, 16, 16, 3)).astype(np.float32)
    expected = jj.jacobian(encoder, batch, schedule="batched")

    # The kernel's file; right, and then wrong.
    calls, factor = [], 1.0

    def kernel(products, cotangent, residuals):
        calls.append(cotangent.shape)
        of_query, of_value, of_key = heads.pullback_heads(products, cotangent, residuals)
        rows_first = (jnp.swapaxes(part, 0, 1) for part in (factor * of_query, of_value, of_key))
        return jnp.stack([part.reshape(*part.shape[:2], -1) for part in rows_first])

    def fits(products, queries, keys):
        return queries == keys[1]

    monkeypatch.setitem(
        heads.KERNELS, "cpu", SimpleNamespace(fits=fits, pullback_heads=kernel, to_inputs=attention_tpu.to_inputs)
    )
    jax.clear_caches()
    backend_check._failed_layers.cache_clear()
    assert relative(jj.jacobian(encoder, batch, schedule="batched"), expected) <= TOLERANCE["float32"]
    assert calls
    calls.clear()
    np.testing.assert_array_equal(jj.jacobian(encoder, batch, schedule="batched", kernels="off"), expected)
    assert not calls
    factor = 0.99
    jax.clear_caches()
    backend_check._failed.cache_clear()
    backend_check._failed_layers.cache_clear()
    with pytest.raises(jj.BackendError, match="pullback of a transformer block in float32"):
        jj.jacobian(encoder, batch, schedule="batched")
    jj.jacobian(encoder, batch, schedule="batched", kernels="off")
