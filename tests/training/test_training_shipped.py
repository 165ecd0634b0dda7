"""jepa-tiny: what ships is what its card says, and loads without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from development_data import SHARED_DATA

import jepa_jax as jj
from jepa_jax.encoders import ENCODERS
from jepa_jax.encoders.shipped import shipped_directory
from jepa_jax.studies.card import embed
from jepa_jax.studies.quality import Split, linear_probe, nearest_neighbours, spread
from jepa_jax.training.config import load_config
from jepa_jax.training.data import load_labelled_images
from jepa_jax.training.run_files import differing_fields

DIRECTORY = shipped_directory("jepa-tiny")
CIFAR10 = SHARED_DATA / "cifar10_subset.npz"


def test_it_is_small_and_comes_with_its_papers():
    assert sum(path.stat().st_size for path in DIRECTORY.rglob("*") if path.is_file()) <= 8_000_000
    assert {"encoder.json", "metrics.jsonl", "MODEL_CARD.md"} <= {path.name for path in DIRECTORY.iterdir()}
    origin = json.loads((DIRECTORY / "encoder.json").read_text())["origin"]
    config = load_config("jepa-tiny")
    assert not differing_fields(origin["config"], config)
    assert json.loads((DIRECTORY / "metrics.jsonl").read_text().splitlines()[-1])["step"] == config.steps


def test_it_loads_offline_and_scores_a_photograph():
    encoder = jj.load_encoder("jepa-tiny")
    assert encoder.spec == ENCODERS["jepa-tiny"]
    result = jj.score(encoder, encoder.preprocess([skimage.data.astronaut(), skimage.data.camera()]))
    assert result.gaussian_score is not None
    assert np.all(np.isfinite(result.gaussian_score))
    assert result.log_volume_rank == encoder.spec.embedding_size


def test_it_scores_where_no_model_is_named(tmp_path: Path):
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "in" / "a.png")
    done = subprocess.run(
        [sys.executable, "-m", "jepa_jax", "score", str(tmp_path / "in"), "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "jepa-tiny is a small ViT" in done.stdout


def test_its_embeddings_fill_their_space_and_tell_what_the_card_says():
    """All 20,000 and 5,000 images of the development subset; the card's 50,000 and 10,000 give a little more."""
    if not CIFAR10.exists():
        pytest.skip(f"the CIFAR-10 subset is not at {CIFAR10}")
    encoder, data = jj.load_encoder("jepa-tiny"), load_labelled_images(CIFAR10)
    train = Split(embed(encoder, data.train), data.train_labels)
    test = Split(embed(encoder, data.test), data.test_labels)
    measured = spread(test.embeddings)
    assert measured["dead_dimensions"] == 0
    assert measured["effective_rank"] >= encoder.spec.embedding_size / 2
    assert linear_probe(train, test) >= 0.55
    assert nearest_neighbours(train, test) >= 0.5
