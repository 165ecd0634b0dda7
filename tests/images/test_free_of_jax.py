"""The room of images, and a worker process that decodes them, load no JAX."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jepa_jax
from jepa_jax.images import InputRecipe, PreprocessSpec
from jepa_jax.images.sources.records import read_file
from jepa_jax.images.worker import Worker

HEAVY = {"jax", "jaxlib", "flax", "orbax", "pyarrow", "torch", "tensorflow", "tensorflow_datasets", "array_record"}
ROOM = Path(jepa_jax.__file__).parent / "images"
BESIDE = {"jepa_jax.errors", "jepa_jax.parquet", "jepa_jax.paths"}
"""What stands above the room."""

MODULES = f"import sys; raise RuntimeError(' '.join(sys.modules.keys() & {HEAVY | {'jepa_jax.images.decoding'}}))"
"""As a record's locator, with the reader `exec`: the reason is which of these modules a worker has loaded."""


def loaded(program: str, *options: str, **environment: str) -> set[str]:
    """The modules that a fresh Python has loaded after a program."""
    command = [sys.executable, *options, "-c", program + "\nimport sys; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def modules() -> list[str]:
    """Every module of the room."""
    found = (path.relative_to(ROOM.parent.parent).with_suffix("") for path in sorted(ROOM.rglob("*.py")))
    return [".".join(path.parts).removesuffix(".__init__") for path in found]


def test_the_package_by_itself_is_light():
    names = loaded("import jepa_jax; jepa_jax.JobError, jepa_jax.__version__, dir(jepa_jax)")
    assert "jepa_jax.errors" in names
    assert not names & (HEAVY | {"numpy", "PIL"})


def test_no_module_of_the_room_loads_jax():
    names = loaded("import " + ", ".join(modules()))
    assert {"jepa_jax.images.worker", "jepa_jax.images.sources.tfds", "jepa_jax.images.pipeline"} <= names
    assert not names & HEAVY


@pytest.mark.parametrize("name", modules())
def test_the_room_imports_nothing_below_it(name: str):
    """Those within functions included, which the test above does not see."""
    path = ROOM.parent.parent.joinpath(*name.split("."))
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for imported in names:
            assert imported.split(".")[0] not in {"jax", "jaxlib", "flax", "orbax"}
            if imported.startswith("jepa_jax."):
                assert imported.startswith("jepa_jax.images") or imported in BESIDE


def picture(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_worker_decodes_as_its_parent_without_jax(tmp_path: Path):
    path = picture(tmp_path / "a.png")
    recipe = InputRecipe(PreprocessSpec(16, 12))
    worker = Worker(read_file, recipe)
    try:
        (found,) = worker.decode([(3, "a.png", str(path))])
    finally:
        worker.stop()
    assert found.index == 3
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        np.testing.assert_array_equal(found.inputs, recipe.inputs(image, "a.png"))

    worker = Worker(exec, recipe)
    try:
        (found,) = worker.decode([(0, "a", MODULES)])
    finally:
        worker.stop()
    assert found.reason == "it cannot be read: RuntimeError: jepa_jax.images.decoding"


def test_a_worker_runs_the_package_of_its_parent(tmp_path: Path):
    """Also where Python itself would not find it, or another one: the parent's script has put it on its path."""
    (tmp_path / "jepa_jax").mkdir()
    (tmp_path / "jepa_jax" / "__init__.py").write_text("raise ImportError('another one')\n")
    where = "import jepa_jax; raise RuntimeError(jepa_jax.__file__)"
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(ROOM.parent.parent)!r})
        from jepa_jax.images.worker import Worker
        worker = Worker(exec, None)
        (found,) = worker.decode([(0, "a", {where!r})])
        worker.stop()
        assert found.reason == f"it cannot be read: RuntimeError: {jepa_jax.__file__}", found.reason
    """
    assert not loaded(program, PYTHONPATH=str(tmp_path)) & HEAVY
