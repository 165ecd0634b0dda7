"""A job that measures its encoder's rounding noise first, for encoders whose images do not show their own."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from jobs_shared import Silent, run_score, table, tiny_encoder
from makes import TINY as SPEC
from PIL import Image

import jepa_jax as jj
from jepa_jax.encoders import Encoder
from jepa_jax.encoders.parameters import initialize_params
from jepa_jax.images.decoding import open_encoded
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.scoring.options import ScoreOptions


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """As CLIP ends: in a projection, so that no direction of the embedding is out of reach."""
    spec = dataclasses.replace(SPEC, vit=dataclasses.replace(SPEC.vit, projection=16))
    return Encoder(spec, initialize_params(spec.vit, seed=0))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures; the first file is none, and no noise is measured on it."""
    folder = tmp_path_factory.mktemp("in")
    (folder / "00.png").write_bytes(b"broken")
    rng = np.random.default_rng(0)
    for i in range(1, 13):
        Image.fromarray(rng.integers(0, 256, (60, 70, 3), np.uint8)).save(folder / f"{i:02d}.png")
    return folder


def test_score_error_is_of_the_noise_that_was_measured(encoder: Encoder, pictures: Path, tmp_path: Path):
    source, options = (
        open_source(pictures),
        JobOptions(ScoreOptions("bfloat16"), batch_size=4, shard_size=4, noise_images=3),
    )
    run_job(encoder, source, tmp_path / "out", Silent(), options)
    found = table(tmp_path / "out").to_pandas().set_index("key")
    batch = encoder.preprocess([open_encoded((pictures / key).read_bytes()) for key in found.index])
    noise = jj.measure_noise(encoder, batch[:3], "bfloat16")
    expected = jj.score(encoder, batch, precision="bfloat16", noise=noise)
    np.testing.assert_allclose(found["score_error"], expected.score_error, rtol=1e-3)
    typical = jj.score(encoder, batch, precision="bfloat16")
    assert np.all(np.abs(np.log(found["score_error"] / np.asarray(typical.score_error))) > 0.01)

    # Resumed, it takes what was measured when it began, whatever images are left.
    part, *_ = sorted((tmp_path / "out" / "scores").glob("part-*"))
    part.unlink()
    (tmp_path / "moved").mkdir()
    before = json.loads((tmp_path / "out" / "manifest.json").read_text())["noise"]
    assert list(before) == ["bfloat16"]
    run_job(encoder, source, tmp_path / "out", Silent(), options)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["noise"] == before
    again = table(tmp_path / "out").to_pandas().set_index("key")
    np.testing.assert_allclose(again["score_error"], found["score_error"], rtol=1e-3)
    with pytest.raises(jj.JobError, match="noise_images: 3 there, None now"):
        run_job(encoder, source, tmp_path / "out", Silent(), dataclasses.replace(options, noise_images=0))


def test_every_rung_that_a_tolerance_may_reach_is_measured(pictures: Path, tmp_path: Path):
    arguments = (pictures, "--output", tmp_path / "out", "--precision", "tensorfloat32", "--batch-size", "4")
    done = run_score(*arguments, "--tolerance", "1", "--noise-images", "1", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert "Rounding noise of the Jacobian, measured on 1 images" in done.stdout
    noise = json.loads((tmp_path / "out" / "manifest.json").read_text())["noise"]
    assert list(noise) == ["tensorfloat32", "bfloat16_3x", "float32"]
    assert list(noise.values()) == sorted(noise.values(), reverse=True)


def test_a_measurement_that_would_change_nothing_is_refused(encoder: Encoder, pictures: Path, tmp_path: Path):
    source = open_source(pictures)
    with pytest.raises(jj.ArgumentError, match="each image of tiny shows its own noise"):
        run_job(tiny_encoder(), source, tmp_path / "out", Silent(), JobOptions(noise_images=2))
    with pytest.raises(jj.ArgumentError, match="nothing finer than float64"):
        run_job(encoder, source, tmp_path / "out", Silent(), JobOptions(ScoreOptions("float64"), noise_images=2))
    with pytest.raises(jj.ArgumentError, match="noise_images=-1 must be at least 0"):
        JobOptions(noise_images=-1)
    broken = source.only(["00.png"])
    with pytest.raises(jj.JobError, match="none of the 1 images"):
        run_job(encoder, broken, tmp_path / "out", Silent(), JobOptions(noise_images=2))
    assert not (tmp_path / "out").exists()
