"""TPUs and GPUs that are not here: what their real compilers make of our programs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jepa_jax as jj
from jepa_jax.costs.target import collectives, target_memory, target_mesh

LIBTPU, CUDA = Path(sys.prefix) / "tpu", Path(sys.prefix) / "cuda"
needs_libtpu = pytest.mark.skipif(not LIBTPU.is_dir(), reason="no libtpu here; make test-all installs it")
needs_cuda = pytest.mark.skipif(not CUDA.is_dir(), reason="no XLA for CUDA here; make test-all installs it")
ROOT = Path(__file__).parents[2]


def with_libtpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that finds the TPU's compiler, and looks for no TPU."""
    return beside(LIBTPU, *arguments)


def beside(compiler: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that finds a compiler, and looks for no device."""
    environment = os.environ | {"PYTHONPATH": f"{compiler}:{ROOT}", "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    environment.pop("XLA_FLAGS", None)
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_a_target_is_a_chip_that_is_known():
    with pytest.raises(jj.ArgumentError, match="target='v9:2x2': 'v9' is no TPU or GPU known here; use one of v4, "):
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


def test_a_number_of_cards_is_one():
    with pytest.raises(
        jj.ArgumentError, match="target='h100:2x2': '2x2' is no number of cards; use one such as 'h100:8'"
    ):
        target_mesh("h100:2x2")
    with pytest.raises(jj.ArgumentError, match=r"target='h100' needs XLA for CUDA: pip install 'jepa-jax\[cuda\]'"):
        target_mesh("h100")  # kept away from tests, as libtpu is
    assert target_memory("h100:8") == int(0.9 * 80 * 2**30)


@needs_cuda
@pytest.mark.exhaustive
def test_a_plan_is_compiled_for_cards_that_are_not_here():
    command = ("-m", "jepa_jax", "plan", "--target", "h100:2", "--model", "dinov2-small", "--precision", "float16")
    done = beside(CUDA, *command, "--batch-size", "16", "--score-only", "--compile")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "target 2 x NVIDIA H100 80GB HBM3" in said
    assert "kernels used" in said
    assert "among devices nothing is sent" in said
    figures = re.findall(r"(?:about|XLA's memory) ([\d,]+) MiB", said)
    planned, taken = (int(figure.replace(",", "")) for figure in figures)
    assert abs(planned / taken - 1) <= 0.2


@needs_cuda
@pytest.mark.exhaustive
def test_a_card_moves_what_is_stored_and_rounds_as_it_is_told():
    code = r"""
import math, re, jax
from benchmarks.program_text import instructions
from jepa_jax.encoders import find_spec
from jepa_jax.scoring.options import ScoreOptions
from jepa_jax.costs.planning import plan_scoring
from jepa_jax.costs.target import target_mesh
spec, mesh = find_spec("dinov2-small").at_image_size(56), target_mesh("h100")
def compiled(precision):
    options = ScoreOptions(precision, mesh=mesh, spectrum=False, images_per_step=8, memory=2**36)
    return plan_scoring(spec, 8, options, compiled=True).program.text()
rows = 8 * (spec.image_size // spec.vit.patch_size) ** 2 * spec.embedding_size * spec.vit.width
sizes = [re.match(r"\(?f32\[([\d,]+)\]", each.result) for each in instructions(compiled("float16"))]
print(sum(math.prod(map(int, size[1].split(","))) >= rows for size in sizes if size))
in_parts = compiled("bfloat16_3x")
print(len(re.findall(r"bf16\[[\d,]*\]\S* multiply\(", in_parts)))
print(sum("__cublas" in line and "bf16[" in line for line in in_parts.splitlines()))
"""
    done = beside(CUDA, "-c", code)
    assert done.returncode == 0, done.stderr
    wide, rounded, cut_off = map(int, done.stdout.split())
    assert wide <= 2, "the Jacobian itself, and turned: cotangents are stored in 16 bits"
    assert rounded == 0, "three bfloat16 products are summed in float32"
    assert cut_off == 0, "what cuBLAS sums up, tensor cores cut off"
