"""The loop as a whole: the order of examples, collapse, every objective, what comes out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from killed_training import ENCODER

import jepa_jax as jj
from jepa_jax.encoders import EncoderSpec, PreprocessSpec, save_encoder
from jepa_jax.errors import ArgumentError
from jepa_jax.paths import to_path
from jepa_jax.training.config import Optimizer, TrainingConfig, load_config
from jepa_jax.training.data import load_examples
from jepa_jax.training.joint_embedding import JointEmbedding
from jepa_jax.training.loop import CollapseWarning, batch_indices, train
from jepa_jax.training.masked_prediction import MaskedPrediction
from jepa_jax.training.mlp import MLP
from jepa_jax.training.objectives import LeJEPA, VICReg
from jepa_jax.training.saved_encoder import write_encoder
from jepa_jax.training.state import initial_state
from jepa_jax.training.views import Crops, ImageViews, VectorViews
from jepa_jax.training.whitening import embed_images, whitened

IMAGES = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), np.uint8)


def test_each_epoch_sees_every_example_once():
    config = TrainingConfig("t", MLP(2, (4,), 2), JointEmbedding(VectorViews(), LeJEPA()), batch_size=8)
    first, second = ([batch_indices(40, config, step) for step in steps] for steps in (range(5), range(5, 10)))
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(40))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))


def test_collapse_is_noticed(tmp_path: Path):
    """Without the term against it, views meet in a point."""
    config = TrainingConfig(
        name="hopeless",
        encoder=MLP(2, (16,), 16),
        objective=JointEmbedding(VectorViews(2, 0.5), LeJEPA(weight=0.0)),
        optimizer=Optimizer(learning_rate=0.01, warmup_steps=1, decay_steps=1),
        steps=200,
        batch_size=32,
    )
    examples = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    with pytest.warns(CollapseWarning, match=r"collapsed: effective rank \d+\.\d of 16, standard deviation 0\.0"):
        train(config, examples, to_path(tmp_path))


def image_config(objective: JointEmbedding | MaskedPrediction, **changes) -> TrainingConfig:
    recipe = PreprocessSpec(resize_shortest=16, crop=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    vit = ENCODER.vit
    if isinstance(objective, JointEmbedding):
        vit = dataclasses.replace(vit, projection=8)
    encoder = EncoderSpec("small", "vit", vit, recipe)
    return TrainingConfig("small", encoder, objective, steps=2, batch_size=16, **changes)


@pytest.mark.filterwarnings("ignore::jepa_jax.training.loop.CollapseWarning")  # two steps take nothing anywhere
@pytest.mark.parametrize(
    "config",
    [
        image_config(
            JointEmbedding(ImageViews((Crops(2, 16, (0.5, 1.0)), Crops(1, 8, (0.2, 0.5)))), LeJEPA(directions=8)),
            start="mimetic",
            bfloat16_products=True,
            optimizer=Optimizer(kind="muon"),
        ),
        image_config(JointEmbedding(ImageViews((Crops(2, 8, (0.2, 0.5)),)), LeJEPA(directions=8), whitened=True)),
        image_config(JointEmbedding(ImageViews((Crops(2, 8, (0.2, 0.5)),)), VICReg())),
        image_config(MaskedPrediction(blocks=2, block_shape=(2, 1), predictor_width=8, predictor_depth=1)),
    ],
    ids=["lejepa", "whitened", "vicreg", "ijepa"],
)
def test_images_to_an_encoder_that_loads_and_scores(config: TrainingConfig, tmp_path: Path):
    output = to_path(tmp_path)
    before = initial_state(config)
    state = train(config, IMAGES, output)
    assert int(state["step"]) == 2
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state["params"]))
    metrics = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
    assert metrics["step"] == 2
    write_encoder(config, state, IMAGES, output / "encoder")
    encoder = jj.load_encoder(output / "encoder")
    assert encoder.spec.gaussian_embedding == config.objective.gaussian
    result = jj.score(encoder, encoder.preprocess(list(IMAGES[:2])))
    assert np.all(np.isfinite(result.score))
    assert (result.gaussian_score is not None) == config.objective.gaussian
    if config.objective.target_decay is not None:
        leaves = zip(*(jax.tree.leaves(tree) for tree in (before["target"], state["target"])), strict=True)
        assert max(float(np.abs(a - b).max()) for a, b in leaves) > 0  # the average moved


def test_calibration_whitens_and_changes_nothing_else():
    config = image_config(JointEmbedding(ImageViews((Crops(2, 8, (0.2, 0.5)),)), LeJEPA()))
    assert isinstance(config.encoder, EncoderSpec)
    encoder = jj.Encoder(config.encoder, initial_state(config)["params"]["encoder"])
    white = whitened(encoder, IMAGES)
    before, after = embed_images(encoder, IMAGES), embed_images(white, IMAGES)
    assert np.allclose(after.mean(axis=0), 0, atol=1e-3)
    assert np.allclose(np.cov(after.T), np.eye(8), atol=1e-2)
    # An affine map of what was there: least squares leave nothing over.
    design = np.concatenate([before / before.std(), np.ones((len(before), 1))], axis=1)
    assert np.linalg.lstsq(design, after, rcond=None)[1].max() < 1e-3
    scores = [np.asarray(jj.score(e, e.preprocess(list(IMAGES[:4]))).score) for e in (encoder, white)]
    assert np.allclose(np.ptp(scores[1] - scores[0]), 0, atol=1e-3)


def test_a_config_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(ArgumentError, match="jepa-tiny"):
        load_config("nosuch")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ArgumentError, match="CONFIG"):
        load_config(tmp_path / "empty.py")
    for content, fault in (("def (", "SyntaxError"), ("import no_such_package", "ModuleNotFoundError")):
        (tmp_path / "faulty.py").write_text(content)
        with pytest.raises(ArgumentError, match=rf"faulty\.py fails: {fault}"):
            load_config(tmp_path / "faulty.py")
    assert load_config("jepa-tiny").name == "jepa-tiny"


def test_a_single_array_is_no_set_of_examples(tmp_path: Path):
    np.save(tmp_path / "images.npy", IMAGES)
    with pytest.raises(
        ArgumentError, match=r"images\.npy cannot be read as \.npz with x_train \(it is a single array"
    ):
        load_examples(tmp_path / "images.npy")


def test_the_directory_of_a_run_is_told_from_its_encoder(tmp_path: Path):
    save_encoder(jj.load_encoder("jepa-tiny"), tmp_path / "run" / "encoder")
    with pytest.raises(ArgumentError, match=r"is a run of jepa-jax train; its encoder is .*run/encoder: name that"):
        jj.load_encoder(tmp_path / "run")
    with pytest.raises(ArgumentError, match="model '' names nothing"):
        jj.load_encoder("")
