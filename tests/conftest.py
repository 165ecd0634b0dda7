"""Settings for every test: strict promotion, quiet libraries, nothing from a hub."""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# As `import jepa_jax` sets it, and before a test imports jax, which sets it lower. The processes that tests start take
# it from here; what XLA prints of each program that it loads would fill the pipe of one whose output nobody reads.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from development_data import SHARED_DATA
from exhaustive import is_exhaustive
from longer import is_longer

jax.config.update("jax_numpy_dtype_promotion", "strict")
pytest.register_assert_rewrite("conversion_files", "dataset_hub", "local_hub")  # before a test imports them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves to `make test-longer` and to `make test-all`."""
    for item in items:
        if is_exhaustive(item.nodeid):
            item.add_marker("exhaustive")
        elif is_longer(item.nodeid):
            item.add_marker("longer")


@pytest.fixture(scope="module", autouse=True)
def drop_compiled_programs() -> Iterator[None]:
    """After each file, forget what it compiled.

    XLA keeps every compiled program mapped into memory, tens to hundreds of mappings each, and Linux grants a process
    65,530 (vm.max_map_count). One of the two processes of the whole suite came to 65,299.
    """
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Photographs that lie beside the project for development; tests that need them skip elsewhere."""
    folder = SHARED_DATA / "photos"
    if not folder.is_dir():
        pytest.skip(f"the development photographs are not at {folder}")
    return sorted(folder.glob("*.jpg"))


@pytest.fixture(scope="session")
def spectra() -> Path:
    """Published singular values of real encoders; tests that need them skip elsewhere."""
    folder = SHARED_DATA / "spectra"
    if not folder.is_dir():
        pytest.skip(f"the development spectra are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def scored_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished jobs over drawn pictures: two sets by one encoder, and one of them by another encoder as well."""
    from scored_sets import score_drawn_sets

    return score_drawn_sets(tmp_path_factory.mktemp("scored"))
