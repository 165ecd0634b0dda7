"""docs/own-encoders.md runs as it stands, and what it scores is the encoder's log-volume."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import jepa_jax as jj
from jepa_jax.scored.reading import read_table

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "own-encoders.md").read_text()
EXAMPLES = dict(re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
ENGINE, FOLDER = "In a data engine", "A folder of pictures"
NULLS = {"Images": 2, "Text": 1}
"""Null directions by the first word of the title."""


def test_every_example_is_found():
    assert len(EXAMPLES) == PAGE.count("```python") == 7
    libraries = ("from flax import nnx", "from flax import linen", "import equinox")
    assert all(any(library in code for code in EXAMPLES.values()) for library in libraries)


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_example_runs(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    if title == FOLDER:
        (tmp_path / "photos").mkdir()
        for i in range(40):
            noise = np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / f"photos/{i:02d}.jpg")
    names: dict[str, Any] = {}
    with jax.numpy_dtype_promotion("standard"):  # as users have it
        exec(EXAMPLES[title], names)
        if title == ENGINE:
            expected = jj.score(names["make_encoder"](), np.asarray(names["batch"]["vector"], np.float32))
            np.testing.assert_allclose(names["found"]["score"], expected.score, rtol=0, atol=1e-4)
            return
        if title == FOLDER:
            batch = np.stack([names["to_input"](path) for path in names["paths"]])
            found = names["table"].sort_values("path")
            np.testing.assert_allclose(found.score, jj.score(names["encoder"], batch).score, rtol=0, atol=1e-4)
            return
        result, encoder, batch = names["result"], names["encoder"], names.get("batch")
        assert np.all(np.asarray(result.score_error) < 0.01)
        if batch is not None:
            require_log_volumes(encoder, batch, result, NULLS.get(title.split(",")[0], 0))
    if batch is None:
        table = read_table("mine.npz")
        assert (len(table), table.scores["score"].shape) == (48, (48,))
        np.testing.assert_allclose(table.scores["score"][:16], result.score, rtol=1e-5)


def require_log_volumes(encoder: jj.OwnEncoder, batch: Any, result: jj.ScoreResult, nulls: int) -> None:
    jacobians = jax.jit(jax.vmap(jax.jacrev(lambda x: encoder(x[None])[0])))(jax.numpy.asarray(batch))
    matrices = np.asarray(jacobians, np.float64).reshape(*jacobians.shape[:2], -1)
    rank = min(matrices.shape[1] - nulls, matrices.shape[2])
    spectra = np.linalg.svd(matrices, compute_uv=False)
    assert result.log_volume_rank == rank
    if nulls:  # one to rounding, LayerNorm's second one up to epsilon over variance, and nothing else is that small
        assert np.all(spectra[:, -1] < 1e-6 * spectra[:, 0])
        assert np.all(spectra[:, rank] < 0.02 * spectra[:, rank - 1])
    np.testing.assert_allclose(result.score, np.log(spectra[:, :rank]).sum(axis=1), rtol=0, atol=0.01)
