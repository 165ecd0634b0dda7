"""Settings for every test: strict promotion, several devices, quiet offline libraries."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 8)  # for what is shared among devices; everything else runs on the first

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Photographs that lie beside the project for development; tests that need them skip elsewhere."""
    folder = SHARED_DATA / "photos"
    if not folder.is_dir():
        pytest.skip(f"the development photographs are not at {folder}")
    return sorted(folder.glob("*.jpg"))
