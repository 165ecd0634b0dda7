"""TPUs that are not here: what their real compiler makes of our programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import jepa_jax as jj
from jepa_jax.scoring.target import collectives, target_memory, target_mesh

LIBTPU = Path(sys.prefix) / "tpu"
needs_libtpu = pytest.mark.skipif(not LIBTPU.is_dir(), reason="no libtpu here; make test-all installs it")
ROOT = Path(__file__).parents[2]


def with_libtpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that finds the TPU's compiler, and looks for no TPU."""
    environment = os.environ | {"PYTHONPATH": f"{LIBTPU}:{ROOT}", "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    environment.pop("XLA_FLAGS", None)
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_a_target_is_a_chip_that_is_known():
    with pytest.raises(jj.ArgumentError, match="target='v9:2x2': 'v9' is no TPU known here; use one of v4, v5e"):
        target_mesh("v9:2x2")
    assert target_memory("v5e:2x2") == int(0.9 * 16 * 2**30)


def test_the_compiler_is_asked_for_by_name():
    with pytest.raises(jj.ArgumentError, match=r"needs the TPU's compiler: pip install 'jepa-jax\[tpu\]'"):
        target_mesh("v5e:2x2")  # libtpu is kept away from tests: see the Makefile


def test_communication_is_read_off_a_program():
    assert collectives("%a = f32[2] all-reduce(%b)") == ["all-reduce"]
    assert collectives("%a = f32[2] add(%b, %c)") == []


@needs_libtpu
@pytest.mark.exhaustive
def test_a_plan_is_compiled_for_chips_that_are_not_here():
    command = ("-m", "jepa_jax", "plan", "--target", "v5e:2x2", "--precision", "bfloat16", "--batch-size", "8")
    done = with_libtpu(*command, "--score-only", "--compile")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "target 4 x TPU v5 lite" in said
    assert "spectrum by cholesky_qr, the volume alone" in said
    assert "kernels used" in said
    unknown = with_libtpu("-m", "jepa_jax", "plan", "--target", "v5e:3x7")
    assert unknown.returncode == 2
    assert "target='v5e:3x7' is no topology of its chips" in unknown.stderr


@needs_libtpu
@pytest.mark.exhaustive
def test_a_block_moves_little_between_a_chip_and_its_memory():
    code = """
from benchmarks.tpu import measure_block
for kernels in ("off", "auto"):
    print(measure_block("dinov2-small", "v5e:2x2", "bfloat16", kernels).gigabytes)
"""
    done = with_libtpu("-c", code)
    assert done.returncode == 0, done.stderr
    by_xla, by_kernels = map(float, done.stdout.split())
    assert 0 < by_xla <= 2.5
    assert 0 < by_kernels <= 1.5


@needs_libtpu
@pytest.mark.exhaustive
def test_float16_is_refused_for_a_target():
    done = with_libtpu("-m", "jepa_jax", "plan", "--target", "v5e:2x2", "--precision", "float16")
    assert done.returncode == 2
    assert "TPUs have no such numbers; use 'bfloat16'" in done.stderr
