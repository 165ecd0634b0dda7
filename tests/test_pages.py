"""What the README and the pages of docs/ tell users to type works as it stands there.

Every command is parsed. Those of the README and of the pages in ``RUN`` are run, in their order, on a few pictures,
with the encoder that ships in place of the one they name. Tutorial and notebooks are run where the documentation is
built.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from command_line import run
from makes import TINIEST_VIT
from PIL import Image

import jepa_jax as jj
from jepa_jax.cli import app
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec
from jepa_jax.encoders.parameters import initialize_params

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
COMMANDS = {
    page: re.findall(r"^    jepa-jax (.+?)(?: +#.*)?$", text.replace("\\\n", " "), re.MULTILINE)
    for page, text in PAGES.items()
}
PYTHON = {page: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for page, text in PAGES.items()}

RUN = ("README", "curation", "views-and-layers", "inputs", "jobs", "precision")
"""Pages whose commands follow on each other, and go without a device, a hub or a data set that is not here."""
ELSEWHERE = ("bench", "gs://", "s3://", "videos/", "clips/", "INPUT", "vjepa2", "--dry-run")
"""Words of commands in those that are run by other tests: of stores, of videos, of forecasts."""
WITH_CODE = {"README": 1, "amortised": 1, "engines": 5, "files": 1, "own-encoders": 7, "python": 1}
"""How many examples of Python a page has. Those of own-encoders.md and of engines.md have tests of their own."""


@pytest.mark.parametrize(("page", "line"), [(page, line) for page, lines in COMMANDS.items() for line in lines])
def test_every_command_parses(page: str, line: str):
    name, *arguments = shlex.split(line)
    command = typer.main.get_group(app).commands[name]  # pyright: ignore[reportAttributeAccessIssue]
    command.make_context(name, arguments)


def test_there_are_commands_and_code():
    assert all(COMMANDS[page] for page in RUN)
    assert {page: len(blocks) for page, blocks in PYTHON.items() if blocks} == WITH_CODE


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the commands name."""
    rng = np.random.default_rng(0)
    for folder, count in (("photos/a", 24), ("photos/b", 24), ("other", 24), ("cats", 2), ("dogs", 2)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / folder / f"{i}.png")
    with tarfile.open(tmp_path / "dogs.tar", "w") as tar:
        tar.add(tmp_path / "dogs", "dogs")
    shutil.rmtree(tmp_path / "dogs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run(page: str, pictures: Path):
    for line in COMMANDS[page]:
        if any(word in line for word in ELSEWHERE):
            continue
        words = shlex.split(line)
        if words[0] == "score":
            if "--model" in words:
                del words[words.index("--model") : words.index("--model") + 2]
            words += ["--quiet"]
        found = run(*words)
        assert found.returncode == 0, f"jepa-jax {' '.join(words)}\n{found.stderr}"


def test_the_library_example_runs(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    tiny = Encoder(
        EncoderSpec("tiny", "dinov2", TINIEST_VIT, PreprocessSpec(32, 28)), initialize_params(TINIEST_VIT, 0)
    )
    monkeypatch.setattr(jj, "load_encoder", lambda name, image_size: tiny)  # the example's name needs the network
    for name in ("a.jpg", "b.jpg"):
        Image.open("other/0.png").save(name)
    names: dict[str, Any] = {}
    exec(PYTHON["README"][0], names)
    assert names["result"].score.shape == (2,)


def test_the_table_is_read_as_the_page_says(pictures: Path):
    jj.score_folder("cats", output="scores", model="jepa-tiny")
    names: dict[str, Any] = {}
    exec(PYTHON["files"][0], names)
    assert list(names["table"]["key"]) == ["0.png", "1.png"]


def test_the_amortised_example_runs(pictures: Path):
    encoder = jj.load_encoder("jepa-tiny")
    images = encoder.preprocess([Image.open(path) for path in sorted(pictures.rglob("*.png"))])
    names: dict[str, Any] = {"jj": jj, "encoder": encoder, "sample": images[:66], "others": images[66:]}
    exec(PYTHON["amortised"][0], names)
    assert names["to_score_exactly"].shape == (len(images) - 66,)
