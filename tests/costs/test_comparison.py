"""What each way to a score costs and loses, on a user's own images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from job_pairs import draw_pictures
from jobs_shared import tiny_encoder

import jepa_jax as jj
from jepa_jax.costs.comparison import _require_enough, compare_methods
from jepa_jax.encoders import save_encoder
from jepa_jax.jobs import open_source

RECORDS = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "in", RECORDS)


def test_each_way_scores_the_same_images(folder: Path):
    found = compare_methods(tiny_encoder(), open_source(folder), levels=["bfloat16"])
    assert (found.images, found.failed, found.rarest) == (RECORDS, 0, 1)
    reference, coarse, amortised = found.methods
    assert (reference.method, reference.precision, reference.spearman, reference.largest_error) == (
        "exact",
        "float32",
        pytest.approx(1),
        0,
    )
    assert reference.recall == (1, 1, 1)
    assert (coarse.precision, amortised.method) == ("bfloat16", "amortised")
    assert 0 < coarse.median_error < amortised.median_error
    assert amortised.spearman < coarse.spearman <= 1
    assert all(np.diff(amortised.recall) >= 0)
    assert all(method.images_per_second > 0 for method in found.methods)


def test_too_few_images_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(jj.ArgumentError, match=r"50 images of the input: .* too few\. --images must be at least 77"):
        compare_methods(tiny_encoder(), open_source(folder), 50)
    _require_enough(77, jj.ArgumentError)
    with pytest.raises(jj.ArgumentError, match="at least 77"):
        _require_enough(76, jj.ArgumentError)
    damaged = draw_pictures(tmp_path / "in", RECORDS)
    for path in sorted(damaged.iterdir())[:60]:
        path.write_bytes(b"no picture")
    with pytest.raises(jj.JobError, match=r"30 images of the input: .* too few"):
        compare_methods(tiny_encoder(), open_source(damaged))


def test_the_command(folder: Path, tmp_path: Path):
    save_encoder(tiny_encoder(), tmp_path / "model")
    command = [sys.executable, "-m", "jepa_jax", "calibrate", str(folder), "--model", str(tmp_path / "model")]
    shown = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert [row["method"] for row in json.loads(shown.stdout)["methods"]] == ["exact", "amortised"]
    refused = subprocess.run([*command, "--precision", "float7"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "precision='float7' is unknown" in refused.stderr
