"""The examples in docstrings run, as they stand."""

import doctest
import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jepa_jax

ROOT = Path(jepa_jax.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("jepa_jax", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text()
)


def test_what_a_newcomer_calls_first_has_an_example():
    homes = {"loading", "encoders.encoder", "scoring.scorer", "scored.score_folder", "batch_scorer"}
    assert {f"jepa_jax.{home}" for home in homes} <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / f"photos/{i}.png")
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
    assert os.listdir(tmp_path) == ["photos"]
