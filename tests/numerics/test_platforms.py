"""The platform is that of the devices in use, whatever else a computer has."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import jepa_jax as jj
from jepa_jax.numerics import platforms, product_rates
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.scoring.options import ScoreOptions
from jepa_jax.spectrum.methods import method_name


@pytest.mark.parametrize(
    ("name", "platform"),
    [("cpu", "cpu"), ("gpu", "gpu"), ("cuda", "gpu"), ("rocm", "gpu"), ("tpu", "tpu"), ("unheard of", "tpu")],
)
def test_devices_have_the_platform_of_their_name(name, platform):
    assert platform_of(SimpleNamespace(platform=name) for _ in range(2)) == platform


def test_without_devices_it_is_the_default_devices():
    assert platform_of() == "cpu"
    for chosen in ("cpu", jax.devices("cpu")[0]):
        with jax.default_device(chosen):
            assert platform_of() == "cpu"


def test_what_lies_on_a_cpu_beside_an_accelerator_gets_a_cpus_choices(monkeypatch):
    matrix = jnp.ones((3, 5), jnp.float32)
    mesh = jax.make_mesh((1, 1), ("data", "rows"))
    monkeypatch.setattr(platforms, "_default_device", lambda: SimpleNamespace(platform="tpu"))
    assert ScoreOptions().platform == "tpu"
    assert ScoreOptions(mesh=mesh).platform == "cpu"
    # While a program is traced, its arrays lie nowhere yet.
    assert "f64" in jax.jit(lambda: jj.singular_values(matrix)).lower().as_text()
    assert "f64" not in jax.jit(jj.singular_values).lower(matrix).as_text()


def test_float64_is_used_where_it_is_fast(monkeypatch):
    assert product_rates.float64_is_fast("cpu")
    assert not product_rates.float64_is_fast("tpu")
    assert product_rates.float64_is_fast("gpu"), "one that is not here is a data centre's"
    # Of an H100 and an L4, as their maker states them.
    assert product_rates.is_fair(67e12, 67e12)
    assert not product_rates.is_fair(0.47e12, 30e12)
    monkeypatch.setattr(product_rates, "_gpu_has_fast_float64", lambda: False)
    assert method_name("auto", jnp.dtype(jnp.float32), "gpu") == "cholesky_qr"
    assert method_name("gram", jnp.dtype(jnp.float32), "gpu") == "gram"


def test_a_gpus_rate_is_measured_once_and_inside_a_trace_too(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: jax.devices("cpu"))
    monkeypatch.setattr(product_rates, "_SQUARE", 128)
    product_rates._gpu_has_fast_float64.cache_clear()
    found = []
    jax.jit(lambda x: [found.append(product_rates.float64_is_fast("gpu")), x][1])(jnp.ones(()))
    assert isinstance(found[0], bool)
    assert product_rates._gpu_has_fast_float64.cache_info().misses == 1
    product_rates._gpu_has_fast_float64.cache_clear()
