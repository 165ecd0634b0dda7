"""A conversion streams: it never holds the weights twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch_families as families

CODE = """
import sys
from pathlib import Path
import jax.numpy as jnp
from orbax.checkpoint import v1
from convert_weights.convert import convert, read_source

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

jnp.zeros(1).block_until_ready()
before = status("VmRSS")
encoder = convert(read_source(Path(sys.argv[1])), Path(sys.argv[2]))
print(status("VmHWM") - before, encoder.parameter_bytes)
"""


def test_peak_is_under_twice_the_weights(tmp_path: Path):
    # 300 MB: enough that 100 MB of compiled programs and buffers do not hide a second copy.
    model = families.random_ijepa(1024, 16, 6, mlp_width=4096, patch_size=14, image_size=56)
    families.save_folder(model, tmp_path / "folder")
    del model
    command = [sys.executable, "-c", CODE, str(tmp_path / "folder"), str(tmp_path / "converted")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak, weights = map(int, done.stdout.split())
    assert weights > 300e6
    assert peak < 2 * weights
