"""Several processes on a machine with GPUs: each gets its own."""

from pathlib import Path

import pytest

import jepa_jax as jj
from jepa_jax.jobs.processes import gpus


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with eleven GPUs, and JAX's plugin for them."""
    for name in (*(f"nvidia{number}" for number in range(11)), "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpus, "PLUGINS", ("jax",))
    return tmp_path


def test_gpus_are_those_of_the_system_or_of_the_environment(devices: Path):
    assert gpus.gpus_here({}, devices) == [str(number) for number in range(11)]
    assert gpus.gpus_here({"JAX_PLATFORMS": "cuda,cpu"}, devices) == [str(number) for number in range(11)]
    assert gpus.gpus_here({gpus.VISIBLE: "3, GPU-8932f937"}, devices) == ["3", "GPU-8932f937"]
    assert gpus.gpus_here({gpus.VISIBLE: ""}, devices) == []
    assert gpus.gpus_here({gpus.VISIBLE: "-1"}, devices) == []
    assert gpus.gpus_here({"JAX_PLATFORMS": "cpu"}, devices) == []


def test_without_jaxs_plugin_there_are_none(devices: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpus, "PLUGINS", ("no_such_plugin",))
    assert gpus.gpus_here({}, devices) == []


def test_no_two_processes_share_one():
    found = gpus.shares(["0", "1", "2", "5", "7"], 2)
    assert found == [{gpus.VISIBLE: "0,2,7"}, {gpus.VISIBLE: "1,5"}]
    assert gpus.shares([], 2) == [{}, {}], "on CPUs all see the same cores"
    with pytest.raises(jj.ArgumentError, match=r"processes=3: this machine has 2 GPU\(s\) for them \(0, 1\)"):
        gpus.shares(["0", "1"], 3)
