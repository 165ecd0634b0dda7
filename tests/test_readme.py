"""What the README tells users to type works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import typer.main
from makes import TINIEST_VIT
from PIL import Image

import jepa_jax as jj
from jepa_jax.cli import app
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec
from jepa_jax.encoders.parameters import initialize_params

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
COMMANDS = re.findall(r"^    jepa-jax (.+?)(?: +#.*)?$", README, re.MULTILINE)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line: str):
    name, *arguments = line.split()
    command = typer.main.get_group(app).commands[name]  # pyright: ignore[reportAttributeAccessIssue]
    command.make_context(name, arguments)


def test_there_are_commands_and_code():
    assert len(COMMANDS) >= 6
    assert len(PYTHON) == 2


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny = Encoder(
        EncoderSpec("tiny", "dinov2", TINIEST_VIT, PreprocessSpec(32, 28)), initialize_params(TINIEST_VIT, 0)
    )
    monkeypatch.setattr(jj, "load_encoder", lambda name, image_size: tiny)  # the example's name needs the network
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(name)
    names: dict = {}
    exec(PYTHON[1], names)
    assert names["result"].score.shape == (2,)
