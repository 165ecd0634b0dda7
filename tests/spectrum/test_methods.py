"""The table of algorithms: one more is one file and one line; ``auto`` is a choice by dtype and platform."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import jepa_jax as jj
from jepa_jax.spectrum.methods import method_name

FILE = '''
"""The spectrum by QR of every other input, and of both triangles."""

import jax.numpy as jnp

from jepa_jax.spectrum.algorithm import Algorithm
from jepa_jax.spectrum.factor import TriangleFactor


def compress(columns):
    halves = [TriangleFactor.of(columns[start : len(columns) - 1 + start : 2]).matrix for start in (0, 1)]
    return TriangleFactor.merge(TriangleFactor(jnp.stack(halves)))


ALGORITHM = Algorithm(compress)
'''

LINE = '    "halves",\n'

USE = """
import numpy as np
import jepa_jax as jj
from jepa_jax.spectrum import methods

assert "halves" in open(methods.__file__).read()
matrix = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
expected = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
np.testing.assert_allclose(jj.singular_values(matrix, "halves"), expected, rtol=1e-5)
for spectrum in (True, False):
    result = jj.score(lambda x: x @ matrix.T, matrix, method="halves", spectrum=spectrum)
    np.testing.assert_allclose(result.score, np.sum(np.log(expected)), rtol=1e-5)
assert jj.score_gradient(lambda x: x @ matrix.T, matrix, method="halves").shape == matrix.shape
try:
    jj.singular_values(matrix, "qr")
except jj.ArgumentError as error:
    print(error)
"""


def test_an_algorithm_is_one_file_and_one_line(tmp_path):
    package = Path(jj.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    copy = Path(shutil.copytree(package, tmp_path / "jepa_jax", ignore=ignored))
    (copy / "spectrum/halves.py").write_text(FILE)
    table = copy / "spectrum/methods.py"
    before, line, after = table.read_text().partition('    "auto",\n')
    table.write_text(before + line + LINE + after)
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "use one of 'auto', 'halves', 'svd', 'gram', 'cholesky_qr'" in done.stdout


@pytest.mark.parametrize(
    ("dtype", "platform", "name"),
    [
        ("float32", "cpu", "gram"),
        ("float32", "gpu", "gram"),
        ("float32", "tpu", "cholesky_qr"),
        ("float64", "cpu", "svd"),
        ("float64", "tpu", "svd"),
    ],
)
def test_auto_takes_what_the_dtype_and_the_platform_allow(dtype, platform, name):
    assert method_name("auto", jnp.dtype(dtype), platform) == name
    assert method_name("svd", jnp.dtype(dtype), platform) == "svd"
