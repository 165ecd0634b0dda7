"""The platform is that of the devices in use, whatever else a computer has."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import jepa_jax as jj
from jepa_jax.numerics import platforms
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.scoring.options import ScoreOptions


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
