"""The wheel alone: it holds every file of the packages and nothing else, and its commands run from it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jepa_jax as jj

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jepa_jax", "convert_weights")

ALONE = """
import runpy, sys
from pathlib import Path
wheel, *sys.argv = sys.argv[1:]
# What the environment has, but no checkout that is installed in it.
sys.path[:] = [wheel, *(place for place in sys.path if not Path(place, "jepa_jax").is_dir())]
import convert_weights, jepa_jax
assert all(module.__file__.startswith(wheel) for module in (jepa_jax, convert_weights)), sys.path
sys.argv[:0] = ["jepa-jax"]
runpy.run_module("jepa_jax", run_name="__main__")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_the_packages_and_nothing_else(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    about = f"jepa_jax-{jj.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {*PACKAGES, about}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if not name.startswith(about)} == wanted
    assert {f"{package}/py.typed" for package in PACKAGES} <= wanted
    entries = zipfile.ZipFile(wheel).read(f"{about}/entry_points.txt").decode()
    assert "jepa-jax = jepa_jax.__main__:main" in entries


def test_its_commands_run_from_it_alone(wheel: Path, tmp_path: Path):
    unpacked, empty = tmp_path / "unpacked", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(unpacked)
    (empty / "photos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(empty / f"photos/{i}.png")

    def run(*arguments: str) -> str:
        command = [sys.executable, "-I", "-c", ALONE, str(unpacked), *arguments]
        done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version") == f"jepa-jax {jj.__version__}\n"
    run("doctor")
    run("score", "photos", "--output", "scored")
    run("report", "scored")
    run("fiftyone", "scored", "--output", "for-fiftyone")
    run("demo", "--output", "demo")
    assert "<html" in (empty / "scored/report.html").read_text()
    assert "<html" in (empty / "demo/report.html").read_text()
    assert {path.name for path in empty.iterdir()} == {"photos", "scored", "for-fiftyone", "demo"}
